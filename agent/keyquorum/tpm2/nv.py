# SPDX-License-Identifier: Apache-2.0
"""Reading an NV index (Part 3 §31.6, §31.13). No boot does."""

from __future__ import annotations

from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.wire import u16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.tpm2.client import Tpm

_READ, _READ_PUBLIC = 0x14E, 0x169
_MAX_AREA, _MAX_NAME, _MAX_INDEX = 1024, 66, 16 * 1024
_CHUNK = 512  # what every TPM gives at a time
_SIZE_AT = 2  # bytes from the end of TPMS_NV_PUBLIC


def read(tpm: Tpm, index: int, by: int) -> bytes:
    """Return what is in an index that `by`, a hierarchy or the index itself, may read with an empty password."""
    reader = tpm.public(tpm.run(_READ_PUBLIC, (index,)), "NV_ReadPublic")
    described = reader.sized(_MAX_AREA)
    reader.sized(_MAX_NAME)
    reader.finish()
    size = int.from_bytes(described[-_SIZE_AT:], "big")
    if size > _MAX_INDEX:
        reader.fail(f"an index of {size} bytes")
    found = b""
    while len(found) < size:
        wanted = min(_CHUNK, size - len(found))
        part = tpm.public(tpm.run(_READ, (by, index), u16(wanted) + u16(len(found)), EMPTY_PASSWORD), "NV_Read")
        found += part.sized(wanted)
        part.finish()
    return found
