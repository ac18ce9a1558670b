# SPDX-License-Identifier: Apache-2.0
"""The box in which threads leave results: order, time-outs, threads that never come back, results that come late."""

from __future__ import annotations

import threading
import time

from keyquorum.mailbox import Mailbox


def collect(box: Mailbox, count: int, seconds: float = 10.0) -> list[object]:
    """Take until `count` results are there."""
    found: list[object] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += box.take(end - time.monotonic())
    return found


def test_results_come_in_order_of_arrival() -> None:
    box = Mailbox()
    for item in range(5):
        box.put(item)
    assert box.take(1.0) == [0, 1, 2, 3, 4]
    assert box.take(0.0) == []


def test_waiting_ends_with_the_first_result() -> None:
    box, started = Mailbox(), time.monotonic()
    threading.Timer(0.05, box.put, ["result"]).start()
    assert box.take(30.0) == ["result"]
    assert 0.04 < time.monotonic() - started < 5


def test_waiting_ends_in_time() -> None:
    box, started = Mailbox(), time.monotonic()
    assert box.take(0.1) == []
    assert 0.09 < time.monotonic() - started < 5
    assert box.take(-5.0) == []


def test_a_thread_that_never_returns_holds_nobody_up() -> None:
    box, never = Mailbox(), threading.Event()
    box.run(never.wait)
    box.run(lambda: "there")
    assert box.take(30.0) == ["there"]
    assert box.take(0.05) == []
    never.set()


def test_many_threads_at_once_lose_nothing() -> None:
    box = Mailbox()
    for number in range(200):
        box.run(lambda number=number: number)  # type: ignore[misc]  # mypy infers no lambda defaults
    found = collect(box, 200)
    assert sorted(int(str(item)) for item in found) == list(range(200))


def test_a_result_after_a_time_out_is_not_lost() -> None:
    box = Mailbox()
    assert box.take(0.0) == []
    box.put("late")
    assert box.take(0.0) == ["late"]


def test_a_closed_box_hands_over_what_is_in_it_and_what_still_comes() -> None:
    box, discarded, gate = Mailbox(), Mailbox(), threading.Event()
    box.put("unread")
    box.run(lambda: gate.wait(30) and "late")
    box.close(discarded.put)
    assert discarded.take(0.0) == ["unread"]
    gate.set()
    assert discarded.take(30.0) == ["late"]
    assert box.take(0.0) == []


def test_closing_while_results_pour_in_loses_none_and_gives_none_twice() -> None:
    for _ in range(30):
        box, discarded = Mailbox(), Mailbox()
        for number in range(16):
            box.run(lambda number=number: number)  # type: ignore[misc]  # mypy infers no lambda defaults
        taken = box.take(0.001)
        box.close(discarded.put)
        rest = collect(discarded, 16 - len(taken))
        assert sorted(int(str(item)) for item in (*taken, *rest)) == list(range(16))
