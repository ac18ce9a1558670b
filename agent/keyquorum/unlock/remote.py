# SPDX-License-Identifier: Apache-2.0
"""Requests to custodians, running beside everything else an unlock does (docs/custodian.md §7; I3, I4).

Each has a thread and a deadline of its own. An answer that comes while somebody types knocks at the box that waits for
him; a request that is not needed any more is called off by closing a pipe, of which its thread has the other end.
"""

from __future__ import annotations

import os
import time

from keyquorum.errors import UnavailableError
from keyquorum.mailbox import Mailbox
from keyquorum.model import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyquorum.model.volume_set import Placement

_FIRST, _MOST = 5.0, 300.0  # seconds until one is asked again that was not there
_REFUSED = 120.0  # at least, until one that said no: its hours, limits or operator may have changed


class Pacing:
    """When a custodian may be asked again: rarer each time, never to the second, not before it wants to be.

    `dice` gives random numbers from 0 to 1. Fragments are known by their set and index.
    """

    def __init__(self, dice: Callable[[], float]) -> None:
        self._dice = dice
        self._failures: dict[tuple[bytes, int], int] = {}
        self._not_before: dict[tuple[bytes, int], float] = {}

    def may_ask(self, fragment: tuple[bytes, int], now: float) -> bool:
        """Say whether it is time."""
        return now >= self._not_before.get(fragment, now)

    def note(self, fragment: tuple[bytes, int], now: float, *, refused: bool, retry_after: float = 0.0) -> None:
        """Remember that it gave nothing, and how long it wants to be left alone."""
        failures = self._failures.get(fragment, 0)
        self._failures[fragment] = failures + 1
        pause = min(_MOST, _FIRST * 2 ** min(failures, 16))
        if refused:
            pause = max(pause, _REFUSED)
        self._not_before[fragment] = now + max(pause * (0.5 + self._dice()), retry_after * (1 + self._dice() / 4))

    def rows(self) -> list[list[object]]:
        """Return what is remembered, for a process that goes on asking: set, index, failures, not before (ms)."""
        return [
            [set_id.hex(), index, failures, int(self._not_before[set_id, index] * 1000)]
            for (set_id, index), failures in self._failures.items()
        ]

    def take(self, rows: list[list[object]]) -> None:
        """Remember what another process of this boot did; the monotonic clock is the same for both."""
        for row in rows:
            set_id, index, failures, not_before = row
            fragment = bytes.fromhex(str(set_id)), int(str(index))
            self._failures[fragment], self._not_before[fragment] = int(str(failures)), int(str(not_before)) / 1000


def dice() -> float:
    """Return a random number from 0 to 1: machines that lost their power together shall not ask together."""
    return int.from_bytes(os.urandom(4), "big") / 0x1_0000_0000


PACING = Pacing(dice)  # one process asks its custodians again and again, in attempts that know nothing of each other


class Remote:
    """The requests that run, for fragments of one set.

    `attempt` asks one custodian, given placement, deadline and the descriptor that calls it off. What it returns has a
    `verdict`, a `retry_after` and a `share`; `forget` wipes an answer that nobody wants any more.
    """

    def __init__(
        self, set_id: bytes, attempt: Callable[[Placement, float, int], Any], forget: Callable[[Any], None]
    ) -> None:
        self._set_id, self._attempt, self._forget = set_id, attempt, forget
        self._box = Mailbox()
        self._running: dict[int, tuple[Placement, float, int]] = {}
        self._listener: Mailbox | None = None

    @property
    def running(self) -> frozenset[int]:
        """The indexes of the fragments that are being asked for."""
        return frozenset(self._running)

    def may_ask(self, placement: Placement) -> bool:
        """Say whether it is time to ask this one, again or for the first time."""
        return PACING.may_ask((self._set_id, placement.index), time.monotonic())

    def begin(self, placement: Placement, seconds: float) -> None:
        """Ask one custodian, for at most `seconds`; raises `UnavailableError` without a thread or descriptor for it."""
        end = time.monotonic() + seconds
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._pace(placement.index, report.UNAVAILABLE)
            raise UnavailableError(f"it cannot be asked: {error.strerror}") from None
        self._running[placement.index] = placement, end, writing

        def work() -> Any:
            try:
                return self._attempt(placement, end, reading)
            finally:
                os.close(reading)

        try:
            self._box.run(work, self._knock)
        except UnavailableError:
            os.close(reading)
            self._call_off(placement.index)
            self._pace(placement.index, report.UNAVAILABLE)
            raise

    def listen(self, box: Mailbox | None) -> None:
        """Put None into `box` whenever an answer comes; with None, knock nowhere."""
        self._listener = box

    def _knock(self) -> None:
        listener = self._listener
        if listener is not None:
            listener.put(None)

    def take(self, seconds: float) -> list[Any]:
        """Wait up to `seconds` for an answer, if any is still to come, and return those that are here."""
        ends = [end for _, end, _ in self._running.values()]
        wait = min(seconds, max(ends) - time.monotonic()) if ends else 0.0
        found = []
        for answer in self._box.take(wait):
            if answer.verdict.index in self._running:
                os.close(self._running.pop(answer.verdict.index)[2])
                self._pace(answer.verdict.index, answer.verdict.verdict, answer.retry_after)
                found.append(answer)
            else:
                self._forget(answer)
        return found

    def _pace(self, index: int, verdict: str, retry_after: float = 0.0) -> None:
        if verdict != report.VALID:
            refused = verdict in {report.REFUSED, report.TAMPERED}
            PACING.note((self._set_id, index), time.monotonic(), refused=refused, retry_after=retry_after)

    def overdue(self) -> list[Placement]:
        """Return those whose time is over, and call them off."""
        now = time.monotonic()
        late = [index for index, (_, end, _) in self._running.items() if now >= end]
        for index in late:
            self._pace(index, report.SILENT)
        return [self._call_off(index) for index in late]

    def close(self) -> list[Placement]:
        """Call off everything that runs and return it; answers that still come are wiped."""
        self._listener = None
        self._box.close(self._forget)
        return [self._call_off(index) for index in tuple(self._running)]

    def _call_off(self, index: int) -> Placement:
        placement, _, writing = self._running.pop(index)
        os.close(writing)
        return placement
