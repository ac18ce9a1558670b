# SPDX-License-Identifier: Apache-2.0
"""A device of a confidential guest that is asked by ioctl(2) (docs/attestation-collect.md §4, §5)."""

from __future__ import annotations

import os
from contextlib import contextmanager

from keyquorum.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ioctl = Callable[[int, int, bytearray], object]


@contextmanager
def opened(device: str, wanted: str) -> Iterator[int]:
    """Open the device for a block that asks it; what it or the kernel refuses becomes `UnavailableError`."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{device} cannot be opened: {error.strerror}") from None
    try:
        yield descriptor
    except OSError as error:
        raise UnavailableError(f"{device} gives no {wanted}: {error.strerror}") from None
    finally:
        os.close(descriptor)
