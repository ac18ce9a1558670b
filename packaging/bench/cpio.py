# SPDX-License-Identifier: Apache-2.0
"""Archives in the format "newc" of cpio, which an initramfs is made of (kernel: driver-api/early-userspace)."""

from __future__ import annotations

from collections.abc import Iterator

_MAGICS = (b"070701", b"070702")
_HEADER = 110
_REGULAR = 0o100000


def entries(raw: bytes, at: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, mode, start of the content and its size of each entry from `at` on, trailers included."""
    while raw[at : at + 6] in _MAGICS:
        fields = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = raw[at + _HEADER : at + _HEADER + name_size - 1].decode()
        start = _aligned(at + _HEADER + name_size)
        yield name, mode, start, size
        at = skip_zeros(raw, _aligned(start + size))


def regular_files(raw: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """The files with content of the archives from `at` on, and where something else begins."""
    files: dict[str, bytes] = {}
    for name, mode, start, size in entries(raw, at):
        at = skip_zeros(raw, _aligned(start + size))
        if mode & 0o170000 == _REGULAR and size:
            files[name.removeprefix("./")] = raw[start : start + size]
    return files, at


def skip_zeros(raw: bytes, at: int) -> int:
    """Where the padding behind an archive ends."""
    while at < len(raw) and raw[at] == 0:
        at += 1
    return at


def _aligned(at: int) -> int:
    return (at + 3) & ~3
