# SPDX-License-Identifier: Apache-2.0
"""What workers count for the monitoring: numbers in shared memory, a row for each worker (docs/custodian.md §12)."""

from __future__ import annotations

import mmap
import os
import struct
import threading

STATUSES = (200, 202, 400, 403, 404, 405, 408, 409, 411, 413, 429, 431, 500, 503)
NAMES = (
    *("ready", "connections_open", "connections_total", "connections_refused", "handshakes_failed", "too_slow"),
    *(f"answers_{status}" for status in STATUSES),
)
_CELL = struct.Struct("<q")
_ROW = _CELL.size * len(NAMES)


class Counters:
    """The rows of all workers, or one worker's own. One thread at a time writes a row."""

    def __init__(self, descriptor: int, rows: int, own: int = 0) -> None:
        self._memory = mmap.mmap(descriptor, rows * _ROW)
        self._rows, self._own, self._lock = rows, own, threading.Lock()

    def add(self, name: str, amount: int = 1) -> None:
        """Count in the own row."""
        at = self._own * _ROW + NAMES.index(name) * _CELL.size
        with self._lock:
            (value,) = _CELL.unpack_from(self._memory, at)
            _CELL.pack_into(self._memory, at, value + amount)

    def total(self, name: str) -> int:
        """Return the sum over all rows."""
        offset = NAMES.index(name) * _CELL.size
        return sum(int(_CELL.unpack_from(self._memory, row * _ROW + offset)[0]) for row in range(self._rows))

    def started(self, row: int) -> bool:
        """Say whether the worker of a row is ready."""
        return bool(_CELL.unpack_from(self._memory, row * _ROW)[0])

    def over(self, row: int) -> None:
        """Note that the worker of a row ended: it is not ready, and its connections are closed."""
        for name in ("ready", "connections_open"):
            _CELL.pack_into(self._memory, row * _ROW + NAMES.index(name) * _CELL.size, 0)


def make(rows: int) -> tuple[int, Counters]:
    """Return a descriptor for workers and the counters."""
    descriptor = os.memfd_create("keyquorum-counters", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, rows * _ROW)
    return descriptor, Counters(descriptor, rows)
