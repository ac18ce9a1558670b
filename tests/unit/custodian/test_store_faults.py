# SPDX-License-Identifier: Apache-2.0
"""The store when its process is killed, its disk is full, its file is damaged, or its backup is old."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from keyquorum.custodian import checkpoint, log_check, merkle, store
from keyquorum.custodian.checkpoint import Checkpoint, Verified
from keyquorum.custodian.note import ED25519, NoteSigner
from keyquorum.custodian.store import StaleStoreError, Store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_releases import Releases, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.errors import KeyquorumError, TamperingError, TryAgainError, UsageError
from keyquorum.evidence.result import Outcome
from unit.custodian import releasing
from unit.custodian.notes import LOG, NOW, ORIGIN, private
from unit.custodian.stores import OPERATOR, OWNER, SEALED, WEB, a_store, asking, epoch, judge, newest, offer

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(releasing.__file__))))


@pytest.fixture
def path(tmp_path: object) -> str:
    a_store(tmp_path).close()
    return os.path.join(str(tmp_path), "custodian.db")


@contextmanager
def opened(path: str, *, current: bool = True) -> Iterator[Store]:
    found = store.open_store(path)
    if current:
        found.unsafe_without_witnesses()
    try:
        yield found
    finally:
        found.close()


def releasing_process(path: str, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "unit.custodian.releasing", path, name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, *sys.path])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, bufsize=0)


def test_what_was_said_is_there_after_a_kill(path: str) -> None:
    """Two processes at one store, killed in the middle of their work, three times."""
    said: list[bytes] = []
    for turn, lines in enumerate((1, 5, 13)):
        both = [releasing_process(path, f"{turn} {which}") for which in "ab"]
        for process in both:
            assert process.stdout is not None
            said += [process.stdout.readline() for _ in range(lines)]
        for process in both:
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            rest = process.stdout.read()
            said += [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
            process.stdout.close()
    with opened(path) as found:
        released = {int(line.split()[1]) for line in said if line.startswith(b"released")}
        spent = [bytes.fromhex(line.split()[1].decode()) for line in said if line.startswith(b"spent")]
        assert len(released) > 8
        assert all(found.log.entry(number).act == "released" for number in released)
        rows = {number for (number,) in found._database.execute("SELECT number FROM release")}
        entries = {number for number in range(found.log.size) if found.log.entry(number).act == "released"}
        assert released <= rows == entries, "never a release without its entry, never one that was told and is lost"
        for nonce in spent:
            assert Releases(found).spend(nonce, asking(), NOW).actual.startswith("spent at")
        found.examine(LOG.key).demand()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_releases_nothing_and_forgets_nothing(path: str) -> None:
    with opened(path) as found:
        desk = Releases(found)
        desk.decide(asking(), NOW, judge())
        size = found.log.size
        with full_disk(os.path.getsize(path + "-wal")):
            for _ in range(3):
                with pytest.raises(KeyquorumError, match="cannot be written") as caught:
                    desk.decide(asking(), NOW, judge())
                assert "make room" in caught.value.hint
                with pytest.raises(KeyquorumError, match="cannot be written"):
                    desk.issue(bytes(32), asking(), NOW)
            assert found.log.size == size
            assert found.machine_of(WEB.client_key) is not None, "reading goes on"
        assert desk.decide(asking(), NOW, judge()).sealed == SEALED % 3
        found.examine(LOG.key).demand()


def release_many(found: Store, count: int) -> None:
    for number in range(count):
        Releases(found).decide(asking(), NOW + number, judge())


def test_a_full_file_system(path: str) -> None:
    """As SQLite itself says it, which is another error than a refused write."""
    with opened(path) as found:
        (pages,) = found._database.execute("PRAGMA page_count").fetchone()
        found._database.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        with pytest.raises(KeyquorumError, match="SQLITE_FULL"):
            release_many(found, 1000)
        found._database.execute("PRAGMA max_page_count = 1000000").fetchall()
        assert Releases(found).decide(asking(), NOW, judge()).sealed
        found.examine(LOG.key).demand()


def test_a_second_writer_waits_and_then_is_told(path: str) -> None:
    with opened(path) as one, opened(path) as two:
        two._database.execute("PRAGMA busy_timeout = 50").fetchall()
        with one.writing(), pytest.raises(TryAgainError):
            Releases(two).decide(asking(), NOW, judge())
        assert Releases(two).decide(asking(), NOW, judge()).sealed


def test_two_processes_do_not_release_more_than_the_limit(path: str) -> None:
    """Each counts and releases in one transaction, so neither sees an old count."""
    acts: list[str] = []

    def few(_deposit: store.Deposit, standing: Standing) -> Verdict:
        return Verdict(act="released" if standing.releases < 5 else "denied", reason="", checks=())

    def ask() -> None:
        with opened(path) as found:
            acts.extend(Releases(found).decide(asking(), NOW, few).entry.act for _ in range(10))

    both = [threading.Thread(target=ask) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert (acts.count("released"), len(acts)) == (5, 20)


def test_a_damaged_file_is_not_served(path: str) -> None:
    with opened(path) as found:
        release_many(found, 40)
    with open(path, "r+b") as file:
        size = os.path.getsize(path)
        for at in range(4096, size, 4096):
            file.seek(at)
            file.write(b"\xff" * 64)
    with pytest.raises(TamperingError), opened(path) as found:
        Releases(found).decide(asking(), NOW, judge())
    with pytest.raises(TamperingError), opened(path) as found:
        found.examine(LOG.key).demand()
    with open(path, "r+b") as file:
        file.write(b"no database at all")
    with pytest.raises(TamperingError), opened(path):
        pass


SPOILT = {
    "sealed": "UPDATE deposit SET sealed = x'00'",
    "policy": "UPDATE deposit SET policy = x'00'",
    "machine": "UPDATE deposit SET machine = 'web-1' WHERE idx = 9",
    "entry": "UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), 'web-1', 'web-2') AS BLOB) WHERE number = 3",
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_row_that_was_changed_releases_nothing(path: str, what: str) -> None:
    with opened(path) as found:
        fragment = epoch(3)
        if what == "machine":
            fragment = fragment.with_(index=9)
            Deposits(found).deposit(offer(fragment, machine="db-1"), OWNER, NOW)
        found._database.execute(SPOILT[what])
        answer = Releases(found).decide(asking(fragment=fragment), NOW, judge())
        assert answer.sealed == b""
        assert [check.name for check in answer.entry.checks if check.outcome is Outcome.FAILED] == ["deposit.unchanged"]


def test_a_log_that_was_changed_is_found(path: str) -> None:
    changes = {
        "DELETE FROM checkpoint": [],
        "UPDATE entry SET body = x'7b7d' WHERE number = 2": ["entry 2 was changed"],
        "DELETE FROM entry WHERE number = (SELECT max(number) FROM entry)": ["1 entries at the end were removed"],
    }
    for statement, expected in changes.items():
        copy = path + "2"
        shutil.copy(path, copy)
        with opened(copy) as found:
            newest(found)
            found._database.execute("PRAGMA foreign_keys = OFF")
            found._database.execute("DELETE FROM deposit")
            found._database.execute(statement)
            problems = [finding.problem for finding in found.examine(LOG.key).findings]
            assert all(any(words in problem for problem in problems) for words in expected)
            assert bool(problems) == bool(expected)
            if "number = 2" in statement:
                with pytest.raises(TamperingError, match="entry 2 was changed"):
                    found.receipt_parts(2, 4)
        os.unlink(copy)


def test_half_a_store_is_none(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "custodian.db")
    for room in (0, 4096, 40_000):
        with full_disk(room), pytest.raises(KeyquorumError, match="cannot be written"):
            store.found_store(path, ORIGIN, OPERATOR, NOW)
        assert os.listdir(str(tmp_path)) == []
    store.found_store(path, ORIGIN, OPERATOR, NOW).close()


# An old backup (I6)


def test_a_backup_is_whole_and_as_secret(path: str) -> None:
    with opened(path) as found:
        Releases(found).decide(asking(), NOW, judge())
        seen = newest(found)
        found.backup(path + ".backup")
        with pytest.raises(UsageError, match="there already"):
            found.backup(path + ".backup")
        Releases(found).decide(asking(), NOW, judge())
        later = newest(found)
    assert os.stat(path + ".backup").st_mode & 0o777 == 0o600
    with opened(path + ".backup", current=False) as old:
        with pytest.raises(StaleStoreError):
            old.prove_current(later)
        old.prove_current(seen)
        assert old.examine(LOG.key).size == 5


def forward(path: str) -> tuple[Verified, list[bytes]]:
    """A new epoch, the old one retired, a machine revoked, releases: return the checkpoint and all entries."""
    with opened(path) as found:
        Deposits(found).deposit(offer(epoch(4)), OWNER, NOW)
        Releases(found).decide(asking(fragment=epoch(4)), NOW, judge())
        Deposits(found).retire(epoch(3), OWNER, NOW)
        found.revoke_machine("db-1", OPERATOR, NOW, "stolen")
        return newest(found), list(found.log.bodies())


def test_a_store_serves_only_what_witnesses_have_seen(path: str) -> None:
    with opened(path, current=False) as found:
        with pytest.raises(TryAgainError, match="not yet compared"):
            Releases(found).decide(asking(), NOW, judge())
        with pytest.raises(TryAgainError):
            found.sign_checkpoint(LOG)
        assert found.log.size == 4
    with opened(path) as found:
        seen = newest(found)
        Releases(found).decide(asking(), NOW, judge())
    with opened(path, current=False) as found:
        found.prove_current(seen)
        assert Releases(found).decide(asking(), NOW, judge()).sealed


def test_no_descriptor_left_is_an_error_of_ours(path: str) -> None:
    """Clients have as many connections as they may, and the store is opened anew: it is not there, and no fault."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(KeyquorumError, match="cannot be written or read"):
            store.open_store(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    store.open_store(path).close()


def test_an_old_backup_releases_nothing(path: str) -> None:
    shutil.copy(path, path + ".backup")
    seen, _ = forward(path)
    with opened(path + ".backup", current=False) as old:
        with pytest.raises(StaleStoreError, match="has 4 entries, and a witness has seen 8"):
            old.prove_current(seen)
        with pytest.raises(TryAgainError):
            Releases(old).decide(asking(), NOW, judge())
    with opened(path, current=False) as found:
        found.prove_current(seen)


def test_an_old_backup_comes_forward_by_its_missing_entries(path: str) -> None:
    shutil.copy(path, path + ".backup")
    seen, entries = forward(path)
    with opened(path + ".backup", current=False) as old:
        old.catch_up(seen, entries[4:])
        answer = Releases(old).decide(asking(), NOW, judge())
        failed = [check.name for check in answer.entry.checks if check.outcome is Outcome.FAILED]
        assert failed == ["epoch", "deposit"], "the retired epoch stays retired"
        revoked = old.machine_of(b"\x02" * 32)
        assert revoked is not None
        assert revoked.revoked
        assert old._database.execute("SELECT count(*) FROM release").fetchone() == (1,)
        answer = Releases(old).decide(asking(fragment=epoch(4)), NOW, judge())
        assert answer.sealed == b"", "what was deposited after the backup is gone; its owner deposits it anew"
        Deposits(old).deposit(offer(epoch(4)), OWNER, NOW)
        assert Releases(old).decide(asking(fragment=epoch(4)), NOW, judge()).sealed == SEALED % 4
        old.examine(LOG.key).demand()
    assert log_check.examine(entries, [seen]).findings == ()


def test_what_was_replaced_since_an_old_backup_is_released_no_more(path: str) -> None:
    """The backup has the policy that its owner replaced, and the missing entries have the new one as a hash only."""
    shutil.copy(path, path + ".backup")
    with opened(path) as found:
        Deposits(found).replace(replace(offer(), policy=b"a stricter policy"), OWNER, NOW)
        seen, missing = newest(found), found.entries(4)
        assert Releases(found).decide(asking(), NOW, judge()).sealed
    with opened(path + ".backup", current=False) as old:
        old.catch_up(seen, missing)
        answer = Releases(old).decide(asking(), NOW, judge())
        assert answer.sealed == b""
        assert answer.entry.checks[-1].actual == "not deposited"
        with pytest.raises(UsageError, match="was replaced by entry"):
            Deposits(old).deposit(offer(), OWNER, NOW)
        Deposits(old).deposit(replace(offer(), policy=b"a stricter policy"), OWNER, NOW)
        assert Releases(old).decide(asking(), NOW, judge()).sealed, "the owner deposits it anew"
        old.examine(LOG.key).demand()


def test_wrong_missing_entries_change_nothing(path: str) -> None:
    shutil.copy(path, path + ".backup")
    seen, entries = forward(path)
    missing = entries[4:]
    with opened(path + ".backup", current=False) as old:
        for wrong in (
            [],
            missing[:-1],
            [*missing, missing[-1]],
            [missing[1], missing[0], *missing[2:]],
            [missing[0].replace(b"web-1", b"web-2"), *missing[1:]],
            [b"{}", *missing[1:]],
        ):
            with pytest.raises(TamperingError):
                old.catch_up(seen, wrong)
            assert old.log.size == 4
        with pytest.raises(TryAgainError):
            Releases(old).decide(asking(), NOW, judge())


def test_the_log_of_another_is_not_ours(path: str) -> None:
    other = NoteSigner("custodian.example/rome", ED25519, private(8))
    with opened(path, current=False) as found:
        root = found.log.root(4)
        for origin, signer, wrong in ((other.key.name, other, root), (ORIGIN, LOG, merkle.leaf_hash(b""))):
            note = checkpoint.sign(Checkpoint(origin=origin, size=4, root=wrong), signer)
            with pytest.raises(TamperingError):
                found.prove_current(checkpoint.verify(note, signer.key))
        with pytest.raises(TryAgainError):
            found.sign_checkpoint(LOG)


def test_no_error_of_sqlite_leaves_the_store(path: str) -> None:
    with opened(path) as found:
        found._database.execute("DROP TABLE evidence")
        found._database.execute("DROP TABLE nonce")
        with pytest.raises(KeyquorumError):
            Releases(found).issue(bytes(32), asking(), NOW)
        with pytest.raises(KeyquorumError):
            Releases(found).spend(bytes(32), asking(), NOW)
    with pytest.raises(KeyquorumError, match="cannot be used like this"):
        found.machine_of(bytes(32))
