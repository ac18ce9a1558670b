# SPDX-License-Identifier: Apache-2.0
"""Threads that may never come back, and the box in which those that do leave their results.

`threading` and `queue` cost a boot more than the two locks that are needed. A thread that hangs in the kernel is
simply left behind: nobody joins it, and it dies with the process (I3).
"""

from __future__ import annotations

import _thread
import time

from keyquorum.deadline import NAP
from keyquorum.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Mailbox:
    """Results from any number of threads, in order of arrival."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._guard = _thread.allocate_lock()
        self._arrived = _thread.allocate_lock()
        self._arrived.acquire()
        self._discard: Callable[[Any], object] | None = None

    def put(self, item: Any) -> None:
        """Leave a result and wake the reader."""
        with self._guard:
            if self._discard is None:
                self._items.append(item)
                if self._arrived.locked():
                    self._arrived.release()
                return
        self._discard(item)

    def take(self, seconds: float) -> list[Any]:
        """Wait up to `seconds` and return everything that has arrived, perhaps nothing."""
        end = time.monotonic() + seconds
        while not self._arrived.acquire(timeout=max(0.0, min(NAP, end - time.monotonic()))):
            if time.monotonic() >= end:
                break
        with self._guard:
            items, self._items = self._items, []
        return items

    def close(self, discard: Callable[[Any], object]) -> None:
        """Read no more: `discard` gets what is here unread and, in its thread, whatever still comes."""
        with self._guard:
            self._discard = discard
            items, self._items = self._items, []
        for item in items:
            discard(item)

    def run(self, work: Callable[[], Any], after: Callable[[], None] | None = None) -> None:
        """Do `work` in a thread of its own; what it returns arrives here, and then `after` is called there.

        Neither raises anything. Raises `UnavailableError` when no thread can be had, and then neither is called.
        """

        def body() -> None:
            self.put(work())
            if after is not None:
                after()

        start_thread(body)


def start_thread(body: Callable[..., None], *arguments: Any) -> None:
    """Call `body` in a thread of its own; raises `UnavailableError` when the system has none left."""
    try:
        _thread.start_new_thread(body, arguments)
    except RuntimeError:  # _thread.error, the same class
        raise UnavailableError("no thread can be had, the system has too many", "see TasksMax and ulimit -u") from None
