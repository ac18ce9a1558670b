# SPDX-License-Identifier: Apache-2.0
"""What a store forgets, and what it must not (docs/custodian.md §8.4)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from keyquorum.custodian import checkpoint, retention
from keyquorum.custodian.chores import Chore, Chores
from keyquorum.custodian.entry import Entry, administration
from keyquorum.custodian.retention import DAY, Pruned
from keyquorum.custodian.store import Deposit, Store, open_store
from keyquorum.custodian.store_releases import Releases, Standing
from keyquorum.custodian.verdict import DENIED, Verdict
from keyquorum.errors import KeyquorumError, TryAgainError
from unit.custodian.notes import LOG, NOW, WITNESSES
from unit.custodian.stores import OPERATOR, a_store, asking


@pytest.fixture
def made(tmp_path: object) -> Iterator[Store]:
    found = a_store(tmp_path)
    yield found
    found.close()


def prune(made: Store, now: int, keep_days: int) -> Pruned:
    return retention.prune(made, retention.find(made, now, keep_days))


def deny(made: Store, at: int) -> Entry:
    def judge(_deposit: Deposit, _standing: Standing) -> Verdict:
        return Verdict(act=DENIED, reason="told so", checks=(), evidence=b"{}")

    return Releases(made).decide(asking(), at, judge).entry


def numbers(made: Store, what: str) -> list[int]:
    return [row[0] for row in made._database.execute(f"SELECT * FROM {what} ORDER BY 1")]


def test_evidence_goes_when_its_time_is_over_and_the_log_stands(made: Store) -> None:
    days = [deny(made, NOW + day * DAY).number for day in range(10)]
    size = made.log.size
    assert prune(made, NOW + 10 * DAY, 4) == Pruned(evidence=6, checkpoints=0, more=False)
    assert numbers(made, "evidence") == days[6:]
    assert made.log.size == size
    assert made.examine(LOG.key).findings == ()
    assert prune(made, NOW + 10 * DAY, 4) == Pruned(evidence=0, checkpoints=0, more=False)


def test_checkpoints_go_but_not_those_of_witnesses_nor_the_newest(made: Store) -> None:
    sizes = []
    for day in range(6):
        deny(made, NOW + day * DAY)
        signed = made.sign_checkpoint(LOG)
        found = checkpoint.verify(signed, LOG.key)
        sizes.append(found.checkpoint.size)
        if day == 1:
            cosigned = checkpoint.cosign(found, WITNESSES[0], NOW)
            made.take_cosigned(checkpoint.verify(cosigned, LOG.key))
    assert prune(made, NOW + 4 * DAY, 1).checkpoints == 2
    assert numbers(made, "checkpoint") == [sizes[1], *sizes[3:]]
    prune(made, NOW + 400 * DAY, 1)
    assert numbers(made, "checkpoint") == [sizes[1], sizes[-1]]
    assert made.examine(LOG.key).findings == ()


def test_nobody_waits_while_it_is_looked_for(made: Store, tmp_path: object) -> None:
    """Another process writes all the time: looking goes on, and what is found is what there was."""
    number = deny(made, NOW).number
    other = open_store(os.path.join(str(tmp_path), "custodian.db"))
    other.unsafe_without_witnesses()
    with other.writing():
        assert retention.find(made, NOW + 10 * DAY, 1).evidence == [number]
    other.close()


def test_a_checkpoint_that_was_cosigned_since_it_was_found_stays(made: Store) -> None:
    sizes = []
    for _ in range(3):
        deny(made, NOW)
        sizes.append(checkpoint.verify(made.sign_checkpoint(LOG), LOG.key).checkpoint.size)
    old = retention.find(made, NOW + 10 * DAY, 1)
    assert old.checkpoints == sizes[:2]
    (bare,) = made._database.execute("SELECT note FROM checkpoint WHERE size = ?", sizes[:1]).fetchone()
    cosigned = checkpoint.cosign(checkpoint.verify(bare, LOG.key), WITNESSES[0], NOW)
    made.take_cosigned(checkpoint.verify(cosigned, LOG.key))
    assert retention.prune(made, old).checkpoints == 1
    assert numbers(made, "checkpoint") == [sizes[0], sizes[2]]


def test_a_fork_is_kept_for_ever(made: Store) -> None:
    with made.writing() as database:
        kept = made.note(administration("fork-seen", OPERATOR, NOW, "")).number
        database.execute("INSERT INTO evidence (number, result) VALUES (?, ?)", (kept, b"two notes"))
    gone = deny(made, NOW).number
    prune(made, NOW + 1000 * DAY, 1)
    assert numbers(made, "evidence") == [kept]
    assert made.log.entry(gone).facts["evidence-sha256"], "its hash stays"


def test_little_at_once(made: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 3)
    for _ in range(7):
        deny(made, NOW)
        made.sign_checkpoint(LOG)
    said = [prune(made, NOW + 10 * DAY, 1) for _ in range(4)]
    assert [(one.evidence, one.checkpoints, one.more) for one in said] == [
        (3, 3, True),
        (3, 3, True),
        (1, 0, False),
        (0, 0, False),
    ]


def test_an_old_copy_forgets_nothing(made: Store, tmp_path: object) -> None:
    made._current = False
    with pytest.raises(TryAgainError):
        prune(made, NOW, 1)


def test_a_chore_that_fails_holds_up_no_other() -> None:
    clock, done = [0.0], list[str]()

    def fail() -> None:
        done.append("fail")
        raise KeyquorumError("cannot now")

    chores = Chores(
        (Chore(name="one", every=10, do=fail), Chore(name="two", every=25, do=lambda: done.append("two"))),
        now=lambda: clock[0],
    )
    for clock[0] in (0.0, 5.0, 10.0, 20.0, 25.0):
        chores.do_due()
    assert done == ["fail", "two", "fail", "fail", "two"]
    chores.stop()
    clock[0] = 100.0
    chores.do_due()
    assert len(done) == 5
