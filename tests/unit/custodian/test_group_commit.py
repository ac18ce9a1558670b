# SPDX-License-Identifier: Apache-2.0
"""Writing together: one transaction for all who wait, each told only what became of its own part."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyquorum.custodian import merkle, receipt
from keyquorum.custodian.entry import MAX_CHECKS, Entry
from keyquorum.custodian.group_commit import GroupCommit
from keyquorum.custodian.store import Deposit, Store, open_store
from keyquorum.custodian.store_listing import counts
from keyquorum.custodian.store_releases import Answer, Releases, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.errors import KeyquorumError, TryAgainError, UsageError
from unit.custodian.notes import CHECK, LOG, NOW, an_entry
from unit.custodian.stores import a_store, asking, judge
from unit.custodian.test_store_faults import full_disk


def current(path: Path) -> Store:
    found = open_store(str(path / "custodian.db"))
    found.unsafe_without_witnesses()
    return found


@pytest.fixture
def writers(tmp_path: Path) -> GroupCommit:
    a_store(tmp_path).close()
    return GroupCommit(lambda: current(tmp_path), str(tmp_path), LOG)


def entry_of(came: object) -> int | None:
    """The entry of which a receipt is wanted; whoever holds the others up wants none."""
    found = came.entry if isinstance(came, Answer) else came
    return found.number if isinstance(found, Entry) else None


class Crowd:
    """Threads that all wait while one writes."""

    def __init__(self, writers: GroupCommit) -> None:
        self._writers = writers
        self._threads: list[threading.Thread] = []
        self._first_is_in, self._go_on = threading.Event(), threading.Event()
        self.came_of: dict[str, object] = {}

    def _hold(self, store: Store) -> int:
        self._first_is_in.set()
        assert self._go_on.wait(60)
        return store.size

    def _run(self, name: str, act: Callable[[Store], object]) -> None:
        try:
            self.came_of[name] = self._writers.run_signed(act, entry_of)
        except KeyquorumError as error:
            self.came_of[name] = error

    def begin(self) -> None:
        """Have somebody write, and not end."""
        self.ask("first", self._hold)
        assert self._first_is_in.wait(60)

    def ask(self, name: str, act: Callable[[Store], object]) -> None:
        thread = threading.Thread(target=self._run, args=(name, act))
        thread.start()
        self._threads.append(thread)

    def end(self, waiting: int) -> None:
        """Let the first one go on, once so many wait, and wait for all."""
        while len(self._writers._waiting) < waiting:
            pass
        self._go_on.set()
        for thread in self._threads:
            thread.join(60)


def recorded(reason: str) -> Callable[[Store], Entry]:
    return lambda store: store.record(an_entry(0, reason))


def refused(store: Store) -> Entry:
    """Write something, and then find out that it must not be."""
    with store.writing():
        store.record(an_entry(0, "taken back"))
        raise UsageError("must not be")


def test_who_waits_is_written_together_under_one_checkpoint(writers: GroupCommit, tmp_path: Path) -> None:
    crowd = Crowd(writers)
    crowd.begin()
    for name in "abc":
        crowd.ask(name, recorded(name))
    crowd.end(waiting=3)
    came = [crowd.came_of[name] for name in "abc"]
    store = current(tmp_path)
    for found, name in zip(came, "abc", strict=True):
        proven = receipt.verify(found.receipt, LOG.key)  # type: ignore[attr-defined]
        assert proven.entry == found.result == store.log.entry(proven.entry.number)  # type: ignore[attr-defined]
        assert proven.entry.reason == name
        assert proven.verified.checkpoint.size == store.size
    assert crowd.came_of["first"].receipt == b""  # type: ignore[attr-defined]


def test_what_one_did_wrong_is_taken_back_and_nobody_elses(writers: GroupCommit, tmp_path: Path) -> None:
    crowd = Crowd(writers)
    crowd.begin()
    crowd.ask("good", recorded("good"))
    crowd.ask("bad", refused)
    crowd.ask("better", recorded("better"))
    crowd.end(waiting=3)
    assert isinstance(crowd.came_of["bad"], UsageError)
    store = current(tmp_path)
    reasons = [store.log.entry(number).reason for number in range(store.size)]
    assert sorted(reasons[-2:]) == ["better", "good"]
    assert "taken back" not in reasons
    grown = merkle.Growing()
    for body in store.log.bodies():
        grown.append(merkle.leaf_hash(body))
    assert store.log.root(store.size) == grown.root, "the tree has nothing of what was taken back"


def test_an_entry_that_is_too_large_is_a_denial_and_spoils_nobody_elses_release(
    writers: GroupCommit, tmp_path: Path
) -> None:
    many = Verdict(act="released", reason="", checks=(CHECK,) * (MAX_CHECKS + 1))

    def deciding(judging: Callable[[Deposit, Standing], Verdict]) -> Callable[[Store], Answer]:
        return lambda store: Releases(store).decide(asking(), NOW, judging)

    crowd = Crowd(writers)
    crowd.begin()
    crowd.ask("before", deciding(judge()))
    crowd.ask("large", deciding(lambda _deposit, _standing: many))
    crowd.ask("refused", lambda store: store.record(replace(an_entry(0, "said no"), checks=(CHECK,) * 65)))
    crowd.ask("after", deciding(judge()))
    crowd.end(waiting=4)
    decided = {name: crowd.came_of[name].result for name in crowd.came_of}  # type: ignore[attr-defined]
    assert (decided["large"].entry.act, decided["large"].sealed) == ("denied", b"")
    assert [check.name for check in decided["large"].entry.checks] == ["entry.size"]
    assert decided["refused"].checks[-1].name == "entry.size"
    assert [bool(decided[name].sealed) for name in ("before", "after")] == [True, True]
    proven = [crowd.came_of[name].receipt for name in decided if name != "first"]  # type: ignore[attr-defined]
    assert len({receipt.verify(proof, LOG.key).verified.signed for proof in proven}) == 1
    assert counts(current(tmp_path))["releases"] == 2


def test_a_part_that_was_finished_before_a_failure_stays(writers: GroupCommit, tmp_path: Path) -> None:
    def spent_and_then_wrong(store: Store) -> None:
        store.record(an_entry(0, "spent"))
        refused(store)

    with pytest.raises(UsageError):
        writers.run(spent_and_then_wrong)
    store = current(tmp_path)
    assert store.log.entry(store.size - 1).reason == "spent"


def test_a_full_disk_fails_everybody_and_nobody_is_told_otherwise(writers: GroupCommit, tmp_path: Path) -> None:
    size = writers.run(lambda store: store.size)
    crowd = Crowd(writers)
    crowd.begin()
    for name in "ab":
        crowd.ask(name, recorded(name * 200))
    with full_disk(0):
        crowd.end(waiting=2)
    assert all(isinstance(crowd.came_of[name], KeyquorumError) for name in "ab")
    assert current(tmp_path).size == size
    assert Releases(current(tmp_path)).decide(asking(), NOW, judge()).sealed
    assert writers.run(recorded("again")).reason == "again"


class Stuck:
    """A connection that, once told to, neither commits nor takes back: its transaction stands for ever."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real, self.stuck = real, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self.stuck and statement in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError("disk I/O error")
        return self._real.execute(statement, *values)


def stuck(store: Store) -> Stuck:
    found = Stuck(store._database)
    store._database = found  # type: ignore[assignment]
    return found


def test_a_transaction_that_was_left_over_swallows_nobody_elses(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    opened: list[Stuck] = []

    def open_one() -> Store:
        found = current(tmp_path)
        opened.append(stuck(found))
        return found

    writers = GroupCommit(open_one, str(tmp_path), LOG)
    size = writers.run(recorded("before")).number
    opened[0].stuck = True
    with pytest.raises(KeyquorumError):
        writers.run(recorded("lost"))
    assert opened[0].in_transaction
    number = writers.run(recorded("after")).number
    other = current(tmp_path)
    assert (other.size, other.log.entry(number).reason) == (size + 2, "after"), "others see what was told"


def test_a_store_with_a_transaction_left_over_writes_nothing_more(tmp_path: Path) -> None:
    """Not even as a part of that transaction, which nobody will ever end."""
    store = a_store(tmp_path)
    database = stuck(store)
    database.stuck = True
    with pytest.raises(KeyquorumError):
        store.record(an_entry(0, "lost"))
    with pytest.raises(KeyquorumError):
        store.record(an_entry(0, "swallowed"))
    assert store.whole


def test_a_fault_of_ours_reaches_its_thread_and_leaves_nobody_waiting(writers: GroupCommit) -> None:
    def broken(_store: Store) -> None:
        raise ZeroDivisionError

    crowd = Crowd(writers)
    crowd.begin()
    crowd.ask("a", recorded("a"))
    crowd.end(waiting=1)
    with pytest.raises(ZeroDivisionError):
        writers.run(broken)
    assert writers.run(recorded("b")).reason == "b"


def test_a_store_that_was_not_compared_writes_nothing(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    old = GroupCommit(lambda: open_store(str(tmp_path / "custodian.db")), str(tmp_path), LOG)
    with pytest.raises(TryAgainError, match="not yet compared"):
        old.run(recorded("no"))


def test_two_processes_writers_take_turns(tmp_path: Path) -> None:
    """Two groups at one store, as two workers have them: every entry is there once, none fails."""
    a_store(tmp_path).close()
    both = [GroupCommit(lambda: current(tmp_path), str(tmp_path), LOG) for _ in range(2)]
    problems: list[BaseException] = []

    def work(group: GroupCommit, name: str) -> None:
        try:
            for number in range(20):
                group.run(recorded(f"{name} {number}"))
        except KeyquorumError as error:
            problems.append(error)

    threads = [
        threading.Thread(target=work, args=(group, f"{which} {one}"))
        for which, group in enumerate(both)
        for one in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    store = current(tmp_path)
    reasons = [store.log.entry(number).reason for number in range(store.size)]
    assert len([reason for reason in reasons if reason and reason[0] in "01"]) == 80
    store.examine(LOG.key).demand()
