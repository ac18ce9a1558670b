# SPDX-License-Identifier: Apache-2.0
"""Processes take turns at running machines: emulation beside too much other emulation is late everywhere.

As many processes as there are cores run machines at once, over all users of this host. A process that has a turn may
run any number of machines: nobody waits for a second turn while holding one. Who measures takes every turn at once.
"""

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

PATIENCE_SECONDS = 1800.0  # then it runs beside the others: late is better than never

_lock = threading.Lock()
_users = 0
_held: list[int] = []  # descriptors of locked files; the locks go with the process


@contextlib.contextmanager
def a_turn() -> Iterator[None]:
    """Hold this process's turn, waiting for one if it has none."""
    global _users
    with _lock:
        if not _users:
            _held.extend(_queue(_places(), 1, time.monotonic() + PATIENCE_SECONDS))
        _users += 1
    try:
        yield
    finally:
        _leave()


@contextlib.contextmanager
def every_turn() -> Iterator[None]:
    """Hold all turns, so that no other process runs a machine meanwhile; the block's own machines need no other turn.

    To be entered while this process runs no machine. Whoever holds a turn finishes first; as with a single turn,
    patience ends and the block then runs beside the others. Keep it short: everybody else waits.
    """
    global _users
    with _lock:
        if _users:
            raise RuntimeError("every turn is wanted while this process holds one: two that do this wait for ever")
        deadline = time.monotonic() + PATIENCE_SECONDS
        places = _places()
        # Of two who want all, one has the lock of the first line and the other waits with empty hands.
        _held.extend(_queue([f"{places[0]}-and-all"], 1, deadline))
        _held.extend(_queue(places, len(places), deadline))
        _users += 1
    try:
        yield
    finally:
        _leave()


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        while not _users and _held:
            os.close(_held.pop())


def _places() -> list[str]:
    directory = tempfile.gettempdir()
    return [os.path.join(directory, f"keyquorum-guests-turn-{number}") for number in range(os.cpu_count() or 1)]


def _queue(places: Sequence[str], wanted: int, deadline: float) -> list[int]:
    """Descriptors of as many locked files as wanted, or of fewer when the deadline has passed.

    Each place is waited for in the kernel, which serves those who wait in the order in which they came. What comes
    when it is not wanted any more is given back.
    """
    turns: list[int] = []
    arrived, over = threading.Condition(), threading.Event()

    def wait_for(place: str) -> None:
        turn = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(turn, fcntl.LOCK_EX)
        with arrived:
            if over.is_set() or len(turns) == wanted:
                os.close(turn)
            else:
                turns.append(turn)
                arrived.notify()

    for place in places:
        threading.Thread(target=wait_for, args=(place,), daemon=True).start()
    with arrived:
        arrived.wait_for(lambda: len(turns) == wanted, max(0.0, deadline - time.monotonic()))
        over.set()
    return turns
