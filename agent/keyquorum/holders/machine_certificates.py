# SPDX-License-Identifier: Apache-2.0
"""Telling in time that this machine's certificates at custodians end (docs/custodian.md §11.4)."""

from __future__ import annotations

from keyquorum.errors import KeyquorumError
from keyquorum.linux import atomic_file
from keyquorum.model import machine_identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def warn(path: str, now: int, tell: Callable[[str], None]) -> None:
    """Tell of each certificate in the machine's file at `path` that is over, or soon will be."""
    try:
        data = atomic_file.read(path, machine_identity.MAX_FILE)
        custodians = machine_identity.parse(data, path).custodians if data else ()
    except KeyquorumError as error:
        tell(error.message)
        return
    for name, known in custodians:
        warning = known.warning(now)
        if warning:
            tell(f"this machine's certificate for {name} {warning}: keyquorum machine renew")
