# SPDX-License-Identifier: Apache-2.0
"""Whoever can write a volume's disk: rewrites LUKS2 headers so that every checksum is right again.

After the on-disk format 1.1.1 (gitlab.com/cryptsetup/LUKS2-docs, §2): two copies, each a binary header of 4096 bytes
followed by JSON, with a SHA-256 over both.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_BINARY = 4096
_CHECKSUM = slice(448, 512)
_UUID = slice(168, 208)
_SEQUENCE = slice(16, 24)


def read_json(path: str) -> dict[str, Any]:
    """Return the metadata of the primary copy."""
    with open(path, "rb") as file:
        binary = file.read(_BINARY)
        text = file.read(_size(binary) - _BINARY)
    value: dict[str, Any] = json.loads(text.rstrip(b"\0"))
    return value


def rewrite(
    path: str,
    change: Callable[[dict[str, Any]], object] | None = None,
    *,
    uuid: bytes | None = None,
    copies: tuple[int, ...] = (0, 1),
) -> None:
    """Change the metadata (in place) and the UUID of one or both copies."""
    with open(path, "r+b") as file:
        size = _size(file.read(_BINARY))
        for copy in copies:
            file.seek(copy * size)
            area = bytearray(file.read(size))
            if change is not None:
                value = json.loads(bytes(area[_BINARY:]).rstrip(b"\0"))
                change(value)
                text = json.dumps(value, separators=(",", ":")).encode()
                assert len(text) < size - _BINARY, "the changed metadata does not fit"
                area[_BINARY:] = text.ljust(size - _BINARY, b"\0")
            if uuid is not None:
                area[_UUID] = uuid.ljust(40, b"\0")
            area[_CHECKSUM] = bytes(64)
            area[_CHECKSUM] = hashlib.sha256(area).digest().ljust(64, b"\0")
            file.seek(copy * size)
            file.write(area)


def damage(path: str, copies: tuple[int, ...] = (0, 1)) -> None:
    """Turn one bit of the metadata over, checksums left as they were."""
    with open(path, "r+b") as file:
        size = _size(file.read(_BINARY))
        for copy in copies:
            file.seek(copy * size + _BINARY + 10)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))


def header_bytes(path: str) -> bytes:
    """Return both copies."""
    with open(path, "rb") as file:
        size = _size(file.read(_BINARY))
        file.seek(0)
        return file.read(2 * size)


def _size(binary: bytes) -> int:
    assert binary[:8] == b"LUKS\xba\xbe\0\x02", "not a LUKS2 volume"
    return int.from_bytes(binary[8:16], "big")
