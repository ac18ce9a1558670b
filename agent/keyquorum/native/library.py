# SPDX-License-Identifier: Apache-2.0
"""Opening a shared library and declaring its functions, with one error when it is not there."""

from __future__ import annotations

import ctypes

from keyquorum.errors import KeyquorumError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ADDRESS = ctypes.c_void_p
SIZE = ctypes.c_size_t
INT = ctypes.c_int
TEXT = ctypes.c_char_p


def load(names: tuple[str, ...], package: str) -> ctypes.CDLL:
    """Open the first of `names` that is installed; `package` is what to install when none is."""
    for name in names:
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
    raise KeyquorumError(f"the library {names[0]} is not installed", f"install the package {package}")


def function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Return `name` of `library` with its types declared; without them pointers would be cut to 32 bits.

    Each call gives an object of its own, so one C function can be declared for secret and for public memory.
    """
    found = library[name]
    found.restype = result
    found.argtypes = arguments
    return found
