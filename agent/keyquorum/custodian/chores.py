# SPDX-License-Identifier: Apache-2.0
"""What one worker does now and then beside answering, in a thread that nobody waits for (docs/custodian.md §12).

A chore that fails is told and tried again at its next time; no request is ever held up by one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum import process, speech
from keyquorum.errors import KeyquorumError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TICK = 1.0  # seconds in which an end is noticed


@dataclass(slots=True, kw_only=True)
class Chore:
    """Something to `do` every so many seconds."""

    name: str
    every: float
    do: Callable[[], None]
    due: float = 0.0


class Chores:
    """The chores of a process, one after the other."""

    def __init__(self, chores: Sequence[Chore], now: Callable[[], float] = time.monotonic) -> None:
        self._chores, self._now = chores, now
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._run, daemon=True, name="chores").start()

    def stop(self) -> None:
        """Begin no chore any more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_TICK):
            self.do_due()

    def do_due(self) -> None:
        """Do what is due now."""
        for chore in self._chores:
            if self._now() < chore.due or self._ended.is_set():
                continue
            try:
                chore.do()
            except KeyquorumError as error:
                speech.warn(f"{chore.name}: {error.message}")
            except Exception as error:  # noqa: BLE001 (the edge of a thread: the other chores go on)
                speech.fail(KeyquorumError(process.fault(error)))
            chore.due = self._now() + chore.every
