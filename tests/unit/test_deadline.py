# SPDX-License-Identifier: Apache-2.0
"""A signal in the moment before a wait ends it all the same."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, cast

import pytest

from keyquorum import deadline, mailbox
from keyquorum.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 600.0


class TerminatedError(BaseException):
    """What this test's handler raises."""


@pytest.fixture(autouse=True)
def termination() -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


class UnluckyPoll:
    """poll(2) in whose first call the signal comes after Python looked for signals, and before the kernel sleeps.

    So the first sleep lasts its whole time, and only after it does Python hear of the signal.
    """

    def __init__(self) -> None:
        self.asked: list[float] = []

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        self.asked.append(milliseconds)
        os.kill(os.getpid(), signal.SIGTERM)
        return []


def test_no_sleep_is_longer_than_a_nap() -> None:
    poll = UnluckyPoll()
    with pytest.raises(TerminatedError):
        deadline.ready(cast("select.poll", poll), time.monotonic() + LONG)
    assert poll.asked == [deadline.NAP * 1000]


def test_nobody_sleeps_in_a_mailbox_longer_than_a_nap(monkeypatch: pytest.MonkeyPatch) -> None:
    box, asked = Mailbox(), list[float]()

    class UnluckyLock:
        def acquire(self, timeout: float) -> bool:
            asked.append(timeout)
            os.kill(os.getpid(), signal.SIGTERM)
            return False

    monkeypatch.setattr(box, "_arrived", UnluckyLock())
    with pytest.raises(TerminatedError):
        box.take(LONG)
    assert asked == [deadline.NAP]


def test_a_wait_of_several_naps_ends_with_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "NAP", 0.01)
    monkeypatch.setattr(mailbox, "NAP", 0.01)
    inside, outside = os.pipe()
    poll, box = select.poll(), Mailbox()
    poll.register(inside, select.POLLIN)

    def later() -> str:
        time.sleep(0.1)
        os.write(outside, b"x")
        return "a result"

    box.run(later)
    assert deadline.ready(poll, time.monotonic() + LONG) == {inside: select.POLLIN}
    assert box.take(LONG) == ["a result"]
    os.close(inside)
    os.close(outside)


def test_a_deadline_ends_the_wait_with_nothing() -> None:
    inside, outside = os.pipe()
    poll = select.poll()
    poll.register(inside, select.POLLIN)
    assert deadline.ready(poll, time.monotonic() + 0.02) == {}
    os.write(outside, b"x")
    assert deadline.ready(poll, time.monotonic()) == {}, "what comes without end must not be read without end"
    assert Mailbox().take(0.02) == []
    assert Mailbox().take(-1.0) == []
    os.close(inside)
    os.close(outside)
