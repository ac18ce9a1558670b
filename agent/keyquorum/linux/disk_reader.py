# SPDX-License-Identifier: Apache-2.0
"""Reading a disk that may never answer, from a process that must be able to end (I3; docs/boot.md §5).

Nothing here has a time limit: whoever waits stops waiting, and the reader dies with its process (`native.io_uring`).
"""

from __future__ import annotations

import errno
import os
import stat
import time

from keyquorum.native.io_uring import Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_BLOCK = 4096  # offsets, sizes and addresses that every disk accepts past the page cache
_PATIENCE = 2.0  # seconds; a disk that left a request open for so long is not asked again before it has answered

_open_requests: dict[int, float] = {}  # device number -> since when


class DiskReader:
    """A disk, partition or file, open for reading past the page cache where that is possible; raises OSError."""

    def __init__(self, path: str) -> None:
        self._ring: Ring | None = None
        self._device = 0
        information = os.stat(path)
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if not stat.S_ISBLK(information.st_mode):
            self.descriptor = os.open(path, flags)
            return
        if time.monotonic() - _open_requests.get(information.st_rdev, time.monotonic()) > _PATIENCE:
            raise OSError(errno.ETIMEDOUT, "it still does not answer")
        self.descriptor = os.open(path, flags | os.O_DIRECT)
        self._device = information.st_rdev
        try:
            self._ring = Ring()
        except OSError:  # forbidden or too old: read as everybody does
            os.close(self.descriptor)
            self.descriptor = os.open(path, flags)

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read as os.pread does, however long it takes."""
        if self._ring is None:
            return os.pread(descriptor, size, offset)
        start, end = offset // _BLOCK * _BLOCK, -(-(offset + size) // _BLOCK) * _BLOCK
        _open_requests.setdefault(self._device, time.monotonic())
        try:
            data = self._ring.read(descriptor, start, end - start)
        finally:
            _open_requests.pop(self._device, None)
        return data[offset - start : offset - start + size]

    def close(self) -> None:
        """Let the disk go."""
        if self._ring is not None:
            self._ring.close()
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
