# SPDX-License-Identifier: Apache-2.0
"""Processes take turns at running machines: emulation beside too much other emulation is late everywhere.

As many processes as there are cores run machines at once, over all users of this host. A process that has a turn may
run any number of machines: nobody waits for a second turn while holding one.
"""

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator

PATIENCE_SECONDS = 1800.0  # then it runs beside the others: late is better than never
_LOOK_AGAIN_SECONDS = 0.2
_AFTER_YOU_SECONDS = 0.5  # between two turns of one process, or those who look only now and then never get one

_lock = threading.Lock()
_machines = 0
_turn = -1
_ended = -_AFTER_YOU_SECONDS


@contextlib.contextmanager
def a_turn() -> Iterator[None]:
    """Hold this process's turn, waiting for one if it has none."""
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _machines, _turn
    with _lock:
        if not _machines:
            time.sleep(max(0.0, _ended + _AFTER_YOU_SECONDS - time.monotonic()))
            _turn = _wait_for_turn()
        _machines += 1


def _end() -> None:
    global _machines, _turn, _ended
    with _lock:
        _machines -= 1
        if not _machines and _turn >= 0:
            os.close(_turn)
            _turn, _ended = -1, time.monotonic()


def _wait_for_turn() -> int:
    """The descriptor of a locked file, or -1 when patience ends; the lock goes with the process."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for number in range(os.cpu_count() or 1):
            path = os.path.join(tempfile.gettempdir(), f"keyquorum-guests-turn-{number}")
            turn = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(turn)
                continue
            return turn
        time.sleep(_LOOK_AGAIN_SECONDS)
    return -1
