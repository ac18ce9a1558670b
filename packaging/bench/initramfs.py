# SPDX-License-Identifier: Apache-2.0
"""What an initramfs weighs: unpacked into one stream, recompressed alike, and what one has that another has not.

An image is one or more cpio archives (format "newc"), the first ones often uncompressed, the last one zstd.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from . import cpio

_ZSTD = b"\x28\xb5\x2f\xfd"
_LEVEL = "-19"

# Where a file of the growth belongs; the first prefix that fits decides.
GROUPS = (
    ("kernel modules", ("usr/lib/modules/",)),
    ("keyquorum", ("usr/lib/keyquorum/", "etc/keyquorum/", "scripts/", "etc/udev/", "usr/lib/udev/")),
    ("Python's interpreter", ("usr/bin/python",)),
    ("Python's modules", ("usr/lib/python3",)),
    ("libraries", ("usr/lib/x86_64-linux-gnu/", "usr/lib/")),
    ("programs", ("usr/bin/", "usr/sbin/", "usr/libexec/")),
)


@dataclass(frozen=True)
class Image:
    """An initramfs: its size as built, its content as one stream, and its regular files by name."""

    as_built: int
    stream: bytes
    files: dict[str, bytes]

    @property
    def unpacked(self) -> int:
        """Bytes of all archives without compression."""
        return len(self.stream)

    def recompressed(self) -> int:
        """Bytes after zstd -19 over all of it, kernel modules included as they were built."""
        return compressed_size(self.stream)


def read_image(path: str) -> Image:
    """Take an initramfs apart."""
    with open(path, "rb") as file:
        raw = file.read()
    stream, files, at = bytearray(), dict[str, bytes](), 0
    while at < len(raw):
        if raw[at : at + 4] == _ZSTD:
            part = _run(["zstd", "-dc"], raw[at:])
            files |= cpio.regular_files(part, 0)[0]
            at = len(raw)
        else:
            found, end = cpio.regular_files(raw, at)
            if end == at:
                raise ValueError(f"{path} holds something unknown at byte {at}")
            files |= found
            part, at = raw[at:end], end
        stream += part
    return Image(len(raw), bytes(stream), files)


def compressed_size(data: bytes) -> int:
    """Bytes after zstd -19, by one thread, so that equal input gives equal output."""
    return len(_run(["zstd", _LEVEL, "-T1", "-c"], data))


@dataclass(frozen=True)
class Part:
    """A group of files that one image has and another has not, or has in another version."""

    name: str
    files: int
    unpacked: int
    alone: int  # bytes after zstd -19 of this group by itself


def growth(before: Image, after: Image) -> list[Part]:
    """What `after` has more than `before`, by group."""
    grouped: dict[str, list[bytes]] = {}
    for name, content in sorted(after.files.items()):
        if before.files.get(name) != content:
            grouped.setdefault(_group(name), []).append(content)
    return [
        Part(name, len(contents), sum(map(len, contents)), compressed_size(b"".join(contents)))
        for name, contents in grouped.items()
    ]


def _group(name: str) -> str:
    return next((group for group, prefixes in GROUPS if name.startswith(prefixes)), "other files")


def _run(command: list[str], data: bytes) -> bytes:
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
