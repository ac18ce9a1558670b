# SPDX-License-Identifier: Apache-2.0
"""The store: what it takes, what it releases, and what it writes down with it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyquorum.custodian import checkpoint, merkle, receipt, store, store_deposits
from keyquorum.custodian.entry import Entry
from keyquorum.custodian.store import Deposit, Machine, Store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_releases import NONCE_LIFE, UNSPENT_FOR_ONE, Answer, Releases, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.errors import (
    KeyquorumError,
    MalformedError,
    QuorumNotReachedError,
    TamperingError,
    TryAgainError,
    UsageError,
)
from keyquorum.evidence.result import Outcome
from unit.custodian.notes import CHECK, FRAGMENT, LOG, NOW, ORIGIN, WITNESSES
from unit.custodian.stores import DB, OPERATOR, OWNER, SEALED, WEB, a_store, asking, epoch, judge, newest, offer

NONCE = bytes(range(32))


@pytest.fixture
def made(tmp_path: object) -> Iterator[Store]:
    found = a_store(tmp_path)
    yield found
    found.close()


def last(made: Store) -> Entry:
    return made.log.entry(made.log.size - 1)


def failed(answer: Answer) -> list[str]:
    return [check.name for check in answer.entry.checks if check.outcome is Outcome.FAILED]


def test_a_new_store(made: Store, tmp_path: object) -> None:
    entries = [made.log.entry(number) for number in range(made.log.size)]
    assert [found.act for found in entries] == ["founded", "enrolled-machine", "enrolled-machine", "deposited"]
    assert made.origin == ORIGIN
    names = os.listdir(str(tmp_path))
    assert "custodian.db-wal" in names
    for name in names:
        assert stat.S_IMODE(os.stat(os.path.join(str(tmp_path), name)).st_mode) == 0o600
    database = made._database
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert database.execute("PRAGMA secure_delete").fetchone() == (1,)
    made.examine(LOG.key).demand()


def test_a_release_and_its_entry_are_one(made: Store) -> None:
    answer = Releases(made).decide(asking(), NOW, judge())
    assert answer.sealed == SEALED % 3
    assert answer.entry == last(made)
    assert (answer.entry.kind, answer.entry.act, answer.entry.machine) == ("release", "released", "web-1")
    assert [check.name for check in answer.entry.checks] == [
        "machine", "epoch", "deposit", "deposit.unchanged", "policy.hours",
    ]  # fmt: skip
    signed = newest(made)
    body, proof = made.receipt_parts(answer.entry.number, signed.checkpoint.size)
    text = receipt.serialise(body, answer.entry.number, proof, signed.signed)
    assert receipt.verify(text, LOG.key).entry == answer.entry


@pytest.mark.parametrize("act", ["denied", "pending"])
def test_what_is_not_granted_is_written_down_and_releases_nothing(made: Store, act: str) -> None:
    answer = Releases(made).decide(asking(), NOW, judge(act))
    assert answer.sealed == b""
    assert (last(made).kind, last(made).act, last(made).reason) == ("decision", act, "told so")


def test_an_error_while_judging_is_a_denial(made: Store) -> None:
    def broken(_deposit: Deposit, _standing: Standing) -> Verdict:
        raise QuorumNotReachedError("the judge has no quorum")

    answer = Releases(made).decide(asking(), NOW, broken)
    assert (answer.sealed, answer.entry.act, answer.entry.reason) == (b"", "denied", "the judge has no quorum")

    def worse(_deposit: Deposit, _standing: Standing) -> Verdict:
        raise ZeroDivisionError

    before = made.log.size
    with pytest.raises(ZeroDivisionError):
        Releases(made).decide(asking(), NOW, worse)
    assert made.log.size == before


def test_who_gets_nothing(made: Store) -> None:
    ghost = Machine(name="ghost", client_key=b"\x03" * 32, attestation_key=b"")
    assert failed(Releases(made).decide(asking(ghost), NOW, judge())) == ["machine"]
    assert failed(Releases(made).decide(asking(DB), NOW, judge())) == ["deposit"]
    assert failed(Releases(made).decide(asking(fragment=epoch(4)), NOW, judge())) == ["deposit"]
    other = FRAGMENT.with_(set_id=bytes(16))
    assert failed(Releases(made).decide(asking(fragment=other), NOW, judge())) == ["deposit"]
    made.revoke_machine("web-1", OPERATOR, NOW, "stolen")
    answer = Releases(made).decide(asking(), NOW, judge())
    assert failed(answer) == ["machine"]
    assert answer.entry.reason == "machine: expected enrolled, found revoked"
    assert answer.sealed == b""


def test_a_machine_has_its_key(made: Store) -> None:
    answer = Releases(made).decide(asking(replace(WEB, client_key=b"\x09" * 32)), NOW, judge())
    assert (answer.sealed, answer.entry.reason) == (b"", "machine: expected enrolled, found another key")


def test_epochs_only_go_forward(made: Store) -> None:
    Deposits(made).deposit(offer(epoch(4)), OWNER, NOW)
    assert Releases(made).decide(asking(), NOW, judge()).sealed, "the old epoch opens until the owner gives it up (I6)"
    with pytest.raises(UsageError, match="epoch 3 is over"):
        Deposits(made).deposit(offer(FRAGMENT.with_(index=5)), OWNER, NOW)
    Deposits(made).retire(epoch(3), OWNER, NOW)
    assert failed(Releases(made).decide(asking(), NOW, judge())) == ["epoch", "deposit"]
    assert Releases(made).decide(asking(fragment=epoch(4)), NOW, judge()).sealed == SEALED % 4
    Deposits(made).retire(epoch(9), OWNER, NOW)
    with pytest.raises(UsageError, match="this set is at 10"):
        Deposits(made).deposit(offer(epoch(9)), OWNER, NOW)
    Deposits(made).deposit(offer(epoch(10)), OWNER, NOW)


def test_what_is_retired_is_gone_from_the_file(made: Store, tmp_path: object) -> None:
    Deposits(made).retire(FRAGMENT, OWNER, NOW)
    made._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for name in os.listdir(str(tmp_path)):
        with open(os.path.join(str(tmp_path), name), "rb") as file:
            assert SEALED % 3 not in file.read()


def test_what_is_not_taken(made: Store) -> None:
    before = made.log.size
    with pytest.raises(UsageError, match="deposited already"):
        Deposits(made).deposit(offer(), OWNER, NOW)
    with pytest.raises(UsageError, match="no machine"):
        Deposits(made).deposit(offer(epoch(4), machine="ghost"), OWNER, NOW)
    for wrong in (b"", bytes(store_deposits.MAX_SEALED + 1)):
        with pytest.raises(MalformedError):
            Deposits(made).deposit(Deposit(fragment=epoch(4), machine="web-1", sealed=wrong, policy=b""), OWNER, NOW)
    with pytest.raises(UsageError, match="has or had"):
        made.enrol_machine(replace(WEB, name="web-2"), OPERATOR, NOW)
    with pytest.raises(MalformedError):
        made.enrol_machine(Machine(name="web-2", client_key=b"short", attestation_key=b""), OPERATOR, NOW)
    with pytest.raises(UsageError, match="no machine"):
        made.revoke_machine("ghost", OPERATOR, NOW, "")
    with pytest.raises(ValueError, match="method of their own"):
        made.record(Entry(number=0, at=NOW, kind="administration", act="retired", who=OWNER))
    assert made.log.size == before


def test_the_name_of_a_revoked_machine_is_not_given_again(made: Store) -> None:
    """Otherwise an operator could have another machine open what an owner deposited for this one."""
    made.revoke_machine("web-1", OPERATOR, NOW, "stolen")
    with pytest.raises(UsageError, match="has or had"):
        made.enrol_machine(replace(WEB, client_key=b"\x07" * 32), OPERATOR, NOW)
    with pytest.raises(UsageError, match="no machine"):
        Deposits(made).deposit(offer(epoch(4)), OWNER, NOW)
    found = made.machine_of(WEB.client_key)
    assert found is not None
    assert found.revoked
    assert made.machine_of(bytes(32)) is None


def spend(made: Store, at: int = NOW, nonce: bytes = NONCE, machine: Machine = WEB, number: int = 3) -> str:
    check = Releases(made).spend(nonce, asking(machine, epoch(number)), at)
    return "" if check.outcome is Outcome.PASSED else check.actual


def test_a_nonce_is_good_once(made: Store, tmp_path: object) -> None:
    issued = Releases(made).issue(NONCE, asking(), NOW)
    assert issued.act == "issued"
    assert spend(made) == ""
    assert spend(made, NOW + 1) == f"spent at {NOW}"
    with pytest.raises(KeyquorumError, match="a rule of its tables"):
        Releases(made).issue(NONCE, asking(), NOW + 2)
    assert spend(made, nonce=bytes(32)) == "unknown"
    for name in os.listdir(str(tmp_path)):
        with open(os.path.join(str(tmp_path), name), "rb") as file:
            assert NONCE not in file.read(), "only its hash is kept"


def test_a_nonce_is_spent_also_by_a_wrong_request(made: Store) -> None:
    for nonce, wrong in (
        (b"a" * 32, {"machine": DB}),
        (b"b" * 32, {"number": 4}),
        (b"c" * 32, {"at": NOW + NONCE_LIFE}),
    ):
        Releases(made).issue(nonce, asking(), NOW)
        assert spend(made, nonce=nonce, **wrong) != ""
        assert spend(made, nonce=nonce).startswith("spent at")


def test_a_request_with_a_wrong_nonce_is_looked_at_no_further(made: Store) -> None:
    desk = Releases(made)
    answer = desk.decide(asking(), NOW, judge(), (desk.spend(NONCE, asking(), NOW),))
    assert (answer.sealed, failed(answer), len(answer.entry.checks)) == (b"", ["nonce"], 1)
    assert answer.entry.reason == "nonce: expected one of this custodian's, found unknown"
    desk.issue(NONCE, asking(), NOW)
    answer = desk.decide(asking(), NOW, judge(), (desk.spend(NONCE, asking(), NOW),))
    assert answer.sealed
    assert answer.entry.checks[0].name == "nonce"


def test_nonces_survive_a_restart(made: Store, tmp_path: object) -> None:
    Releases(made).issue(NONCE, asking(), NOW)
    Releases(made).issue(b"d" * 32, asking(), NOW)
    assert spend(made) == ""
    signed = newest(made)
    again = store.open_store(os.path.join(str(tmp_path), "custodian.db"))
    again.prove_current(signed)
    assert spend(again) == f"spent at {NOW}"
    assert spend(again, nonce=b"d" * 32) == ""
    again.close()


def test_one_machine_has_so_many_challenges(made: Store) -> None:
    for number in range(UNSPENT_FOR_ONE):
        Releases(made).issue(bytes([number]) * 32, asking(), NOW)
    with pytest.raises(TryAgainError):
        Releases(made).issue(bytes([99]) * 32, asking(), NOW)
    Releases(made).issue(bytes([98]) * 32, asking(DB), NOW)
    Releases(made).issue(bytes([99]) * 32, asking(), NOW + NONCE_LIFE)
    with pytest.raises(MalformedError):
        Releases(made).issue(b"short", asking(), NOW)


def test_releases_are_counted(made: Store) -> None:
    seen: list[tuple[int, int]] = []

    def count(_deposit: Deposit, standing: Standing) -> Verdict:
        seen.append((standing.releases_in_hour, standing.releases))
        return Verdict(act="released", reason="", checks=())

    for at in (NOW, NOW + 10, NOW + 3600, NOW + 3611):
        Releases(made).decide(asking(), at, count)
    assert seen == [(0, 0), (1, 1), (1, 2), (1, 3)]
    Releases(made).decide(asking(), NOW + 3612, judge("denied"))
    assert made._database.execute("SELECT count(*) FROM release").fetchone() == (4,)


def wait(made: Store, at: int = NOW) -> int:
    number = Releases(made).decide(asking(), at, judge("pending", within=600)).pending
    assert number is not None
    return number


def test_an_approval_lets_one_request_through(made: Store) -> None:
    seen: list[Standing] = []

    def look(_deposit: Deposit, standing: Standing) -> Verdict:
        seen.append(standing)
        return Verdict(act="released", reason="", checks=())

    number = wait(made)
    assert wait(made, NOW + 60) == number, "asking again does not make another request"
    assert last(made).facts["pending"] == str(number)
    found = Releases(made).answer_pending(number, b"signed by anna", OPERATOR, NOW, approved=True)
    assert (found.kind, found.act, found.facts["pending"]) == ("approval", "approved", str(number))
    Releases(made).decide(asking(), NOW + 70, look)
    Releases(made).decide(asking(), NOW + 80, look)
    assert [(standing.pending, standing.approvals) for standing in seen] == [(number, (b"signed by anna",)), (None, ())]
    with pytest.raises(UsageError):
        Releases(made).answer_pending(number, b"", replace(OPERATOR, name="ben"), NOW + 90, approved=True)


def test_approvals_that_do_not_count(made: Store) -> None:
    number = wait(made)
    desk = Releases(made)
    desk.answer_pending(number, b"x", OPERATOR, NOW, approved=True)
    with pytest.raises(UsageError, match="answered"):
        desk.answer_pending(number, b"y", OPERATOR, NOW, approved=True)
    with pytest.raises(UsageError, match="no request"):
        desk.answer_pending(number + 1, b"y", OPERATOR, NOW, approved=True)
    with pytest.raises(UsageError, match="no request"):
        desk.answer_pending(number, b"y", replace(OPERATOR, name="ben"), NOW + 600, approved=True)
    later = wait(made, NOW + 600)
    assert later != number, "a request that nobody answered in time starts again, without its approvals"
    desk.answer_pending(later, b"no", OPERATOR, NOW + 601, approved=False)
    assert last(made).act == "refused"
    assert wait(made, NOW + 602) != later


def test_evidence_is_kept_beside_the_log(made: Store) -> None:
    def judged(_deposit: Deposit, _standing: Standing) -> Verdict:
        return Verdict(act="denied", reason="no", checks=(CHECK,), evidence=b"the attestation result")

    answer = Releases(made).decide(asking(), NOW, judged)
    row = made._database.execute("SELECT number, result FROM evidence").fetchone()
    assert row == (answer.entry.number, b"the attestation result")
    assert answer.entry.facts["evidence-sha256"] == store.sha256(b"the attestation result")
    made._database.execute("DELETE FROM evidence")
    made.examine(LOG.key).demand()


def test_the_log_gives_its_proofs(made: Store) -> None:
    old = newest(made).checkpoint
    Releases(made).decide(asking(), NOW, judge())
    new = newest(made).checkpoint
    proof = made.consistency_proof(old.size, new.size)
    merkle.verify_consistency(old.size, old.root, new.size, new.root, proof)
    for sizes in ((0, new.size + 1), (new.size + 1, new.size)):
        with pytest.raises(MalformedError):
            made.consistency_proof(*sizes)
    with pytest.raises(MalformedError):
        made.receipt_parts(new.size - 1, new.size - 1)


def test_entries_are_copied_in_parts(made: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(made.log.bodies())
    monkeypatch.setattr(store, "MOST_ENTRIES", 3)
    assert [made.entries(start) for start in (0, 3, 6)] == [whole[:3], whole[3:], []]


def test_a_file_that_is_there_is_not_overwritten(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "custodian.db")
    with open(path, "w", encoding="utf-8") as file:
        file.write("precious")
    with pytest.raises(UsageError, match="there already"):
        store.found_store(path, ORIGIN, OPERATOR, NOW)
    with pytest.raises(TamperingError, match="origin"):
        store.found_store(path + "2", "a\nb", OPERATOR, NOW)
    with pytest.raises(KeyquorumError, match="cannot make"):
        store.found_store(os.path.join(path, "x"), ORIGIN, OPERATOR, NOW)
    with open(path, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_other_files_are_not_opened(tmp_path: object, made: Store) -> None:
    path = os.path.join(str(tmp_path), "other.db")
    with pytest.raises(UsageError, match="no custodian's store at"):
        store.open_store(path)
    sqlite3.connect(path).close()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE x (y)")
    database.close()
    with pytest.raises(UsageError, match="by others"):
        store.open_store(path)
    os.chmod(path, 0o600)
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(UsageError, match="is no custodian's store"):
        store.open_store(path)
    with open(path, "rb") as file:
        assert file.read() == before, "not even its journal mode is changed"
    made._database.execute("PRAGMA user_version = 2")
    with pytest.raises(UsageError, match="version 2"):
        store.open_store(os.path.join(str(tmp_path), "custodian.db"))
    made._database.execute("PRAGMA user_version = 1")
    os.chmod(os.path.join(str(tmp_path), "custodian.db"), 0o640)
    with pytest.raises(UsageError, match="by others"):
        store.open_store(os.path.join(str(tmp_path), "custodian.db"))


def test_a_snapshot_is_one_state_whatever_others_write(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    other = store.open_store(str(tmp_path / "custodian.db"))
    other.unsafe_without_witnesses()
    with made.snapshot():
        size = made.size
        Releases(other).decide(asking(), NOW, judge())
        assert (made.size, other.size) == (size, size + 1)
    assert made.size == size + 1
    with pytest.raises(ZeroDivisionError), made.snapshot():
        raise ZeroDivisionError
    assert Releases(made).decide(asking(), NOW, judge()).sealed, "a snapshot that failed is over"


def test_a_checkpoint_with_fewer_cosignatures_replaces_none_with_more(made: Store) -> None:
    bare = newest(made)
    one = checkpoint.verify(checkpoint.cosign(bare, WITNESSES[0], NOW), LOG.key)
    both = checkpoint.verify(checkpoint.cosign(one, WITNESSES[1], NOW), LOG.key)
    for offered, kept in ((one, one), (bare, one), (both, both), (one, both)):
        made.take_cosigned(offered)
        assert made.newest_checkpoint() == kept.signed
