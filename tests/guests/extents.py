# SPDX-License-Identifier: Apache-2.0
"""Copies of images that stay sparse, and the places where a file really has data."""

import errno
import os
import shutil
from collections.abc import Iterator

CHUNK = 1 << 20


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Start and end of each piece of a file that is not a hole."""
    end, size = 0, os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def pieces(descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Positions and content of a range, at most CHUNK at a time."""
    while start < end:
        piece = os.pread(descriptor, min(CHUNK, end - start), start)
        yield start, piece
        start += len(piece)


def sparse_copy(source: str, target: str) -> str:
    """A copy of an image with the same holes; gives the target's path."""
    size = os.stat(source).st_size
    with open(target, "wb") as out:
        out.truncate(size)
    copy_into(source, target, 0)
    shutil.copymode(source, target)
    return target


def copy_into(source: str, target: str, offset: int) -> None:
    """Write a file's data into another one from an offset on; its holes leave what was there."""
    with open(source, "rb") as reader, open(target, "r+b") as writer:
        for start, end in data_extents(reader.fileno()):
            for at, piece in pieces(reader.fileno(), start, end):
                os.pwrite(writer.fileno(), piece, offset + at)
