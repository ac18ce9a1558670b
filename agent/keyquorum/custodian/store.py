# SPDX-License-Identifier: Apache-2.0
"""The custodian's store: sealed fragments, public facts and the log, in one SQLite file (docs/custodian.md §8).

What happens and the entry that says so are one transaction, and every change that must survive an old backup is made
from its entry (`effects`), so that the missing entries bring an old backup forward. No method returns before the
disk has what it says; nothing is released by a store that has not been compared with what witnesses saw.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, entry, log_check, merkle, store_schema
from keyquorum.custodian.checkpoint import Checkpoint
from keyquorum.custodian.effects import apply
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.custodian.store_log import StoredLog
from keyquorum.custodian.store_schema import WHAT
from keyquorum.errors import KeyquorumError, MalformedError, TamperingError, TryAgainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.log_check import LogReport
    from keyquorum.custodian.note import NoteSigner, VerifierKey
    from keyquorum.model.fragment_name import FragmentName

MAX_KEY = 4096
MOST_ENTRIES = 1000  # in one answer
# How a transaction begins, ends well and ends badly; and how one within another does.
_OUTER = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_INNER = ("SAVEPOINT inner", "RELEASE inner", "ROLLBACK TO inner", "RELEASE inner")


class StaleStoreError(TamperingError):
    """The store is older than what a witness has seen of it: a restored backup (I6). It releases nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """An enrolled machine: SHA-256 of its TLS client key (SubjectPublicKeyInfo), and its TPM attestation key.

    `attestation_key` is the public area, `qualified_name` the key's place in the TPM (`evidence.tpm_quote`).
    """

    name: str
    client_key: bytes
    attestation_key: bytes
    qualified_name: bytes = b""
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Deposit:
    """What an owner leaves: for which machine, the sealed identity, signed release policy and reference values."""

    fragment: FragmentName
    machine: str
    sealed: bytes
    policy: bytes
    reference: bytes = b""

    def hashes(self) -> dict[str, str]:
        """Return what the log entry of this deposit says of it."""
        parts = {"sealed": self.sealed, "policy": self.policy, "reference": self.reference}
        return {f"{name}-sha256": sha256(part) for name, part in parts.items()}


class _Reading:
    """What is read inside is read of a store; it knows nothing of who reads, so there is one for all."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        return self._store._database  # noqa: SLF001 (its own)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise store_schema.failure(error) from None


class Store:
    """One connection to the store; each process and thread of a server has its own."""

    def __init__(self, database: sqlite3.Connection, *, current: bool) -> None:
        self._database = database
        self._current = current
        self._depth = 0  # of transactions within one another
        self._reading = _Reading(self)
        self.log = StoredLog(database)
        with self.reading():
            row = database.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()
        self.origin = "" if row is None else str(row[0])

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def reading(self) -> _Reading:
        """Turn SQLite's errors into ours."""
        return self._reading

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read what is inside from one state of the store, which also costs less than looking for the newest each time.

        Not for long, and with nothing written inside: the store's own log grows meanwhile. Within a transaction it is
        what that one sees.
        """
        with self.reading() as database:
            if self._depth:
                yield
                return
            database.execute("BEGIN")
            try:
                yield
            finally:
                database.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Do what is inside all or not at all, one process at a time, and leave when it is on the disk.

        Raises `TryAgainError` before the store was compared with the witnesses.
        """
        if not self._current:
            raise TryAgainError(f"{WHAT}: not yet compared with the checkpoints that witnesses have")
        with self._transaction():
            yield self._database

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Begin and commit, or, within another transaction, a part that is taken back by itself (`group_commit`)."""
        begin, commit, *rollback = _INNER if self._depth else _OUTER  # one that was left over makes BEGIN fail
        self._depth += 1
        try:
            self._database.execute(begin)
            if self._depth == 1:
                self.log.hold()
            try:
                yield
                self._database.execute(commit)
            except BaseException:  # an error inside, or a commit that failed
                self.log.hold()  # what it knew may be taken back now
                for statement in rollback if self._database.in_transaction else ():
                    self._database.execute(statement)
                raise
        except sqlite3.Error as error:
            raise store_schema.failure(error) from None
        finally:
            self._depth -= 1
            if not self._depth:
                self.log.let_go()

    def record(self, draft: Entry) -> Entry:
        """Append an entry that changes nothing else, such as a refusal; return it with its number."""
        if draft.kind == entry.ADMINISTRATION and draft.act != "settings":
            raise ValueError("acts that change something have a method of their own")
        with self.writing():
            return self.note(draft)

    def note(self, draft: Entry) -> Entry:
        """Append an entry and do what it says, within the transaction of the caller."""
        found = self.log.append(draft)
        apply(self._database, found)
        return found

    # Machines and epochs

    def enrol_machine(self, machine: Machine, who: Actor, at: int) -> Entry:
        """Enrol a machine; raises `UsageError` if one ever had this name or key.

        A revoked machine's name is not given again: fragments deposited for the old machine would be the new one's.
        """
        with self.writing() as database:
            return self.add_machine(database, machine, who, at)

    def add_machine(self, database: sqlite3.Connection, machine: Machine, who: Actor, at: int) -> Entry:
        """Enrol a machine within the caller's transaction."""
        keys = (machine.attestation_key, machine.qualified_name)
        if len(machine.client_key) != 32 or max(map(len, keys)) > MAX_KEY:
            raise MalformedError("the machine's keys", machine.name, "have a wrong size")
        query = "SELECT name FROM machine WHERE name = ? OR client_key = ?"
        taken = database.execute(query, (machine.name, machine.client_key)).fetchone()
        if taken is not None:
            raise UsageError(f"machine {taken[0]} has or had this name or key", "take another name")
        facts = {"identity-sha256": machine.client_key.hex()}
        found = self.note(entry.administration("enrolled-machine", who, at, machine.name, facts=facts))
        database.execute(
            "INSERT INTO machine (name, client_key, attestation_key, qualified_name, enrolled) VALUES (?, ?, ?, ?, ?)",
            (machine.name, machine.client_key, *keys, at),
        )
        return found

    def machine_of(self, client_key: bytes) -> Machine | None:
        """Return the machine with this TLS key, revoked ones too."""
        with self.reading() as database:
            query = """SELECT name, client_key, attestation_key, qualified_name, revoked IS NOT NULL
                FROM machine WHERE client_key = ?"""
            row = database.execute(query, (client_key,)).fetchone()
        return None if row is None else Machine(row[0], row[1], row[2], row[3], revoked=bool(row[4]))

    def revoke_machine(self, name: str, who: Actor, at: int, reason: str) -> Entry:
        """Never again release anything to a machine; raises `UsageError` if there is none of this name."""
        with self.writing() as database:
            if database.execute("SELECT 1 FROM machine WHERE name = ?", (name,)).fetchone() is None:
                raise UsageError(f"no machine {name} is enrolled")
            return self.note(entry.administration("revoked-machine", who, at, name, reason=reason))

    def epochs(self, fragment: FragmentName) -> tuple[int, int]:
        """Return the highest epoch deposited for the fragment's set, and the lowest that is not retired."""
        query = "SELECT highest, lowest FROM volume_epochs WHERE volume = ? AND set_id = ?"
        with self.reading() as database:
            row = database.execute(query, (fragment.volume, fragment.set_id)).fetchone()
        return (0, 1) if row is None else (int(row[0]), int(row[1]))

    # The log: what it proves, and whether this store is the newest

    def receipt_parts(self, number: int, size: int) -> tuple[bytes, list[bytes]]:
        """Return an entry and its inclusion proof in the tree of `size` entries."""
        with self.snapshot():
            return self.log.body(number), merkle.inclusion_proof(number, size, self.log.read)

    def entries(self, start: int) -> list[bytes]:
        """Return at most `MOST_ENTRIES` entries from `start` on, as they stand: what an export or a witness copies."""
        with self.reading():
            return list(self.log.bodies(start, start + MOST_ENTRIES))

    @property
    def size(self) -> int:
        """Number of entries of the log."""
        with self.reading():
            return self.log.size

    def newest_checkpoint(self) -> bytes:
        """Return the checkpoint that was kept of the log as it is now, b"" if none was."""
        with self.reading() as database:
            query = "SELECT note FROM checkpoint WHERE size = ?"
            row = database.execute(query, (self.log.size,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the log of `old` entries is the beginning of that of `new`."""
        with self.reading():
            if new > self.log.size:
                raise MalformedError("the question to the log", "size", f"the log has no {new} entries")
            return merkle.consistency_proof(old, new, self.log.read)

    @property
    def whole(self) -> bool:
        """Whether a transaction that was begun still stands; SQLite itself ends one when the disk is full, for one."""
        return self._database.in_transaction

    def sign_checkpoint(self, signer: NoteSigner) -> bytes:
        """Sign the log as it is now, and keep the note; one that is kept already is returned as it is."""
        with self.writing():
            kept = self.newest_checkpoint()
            if kept:
                return kept
            size = self.log.size
            note = checkpoint.sign(Checkpoint(origin=self.origin, size=size, root=self.log.root(size)), signer)
            self.log.add(size, note)
            return note

    def prove_current(self, newest: Verified) -> None:
        """Compare with the newest checkpoint that witnesses have; only then does the store write and release.

        Raises `StaleStoreError` for a store that lacks entries, `TamperingError` for one with others.
        """
        seen = newest.checkpoint
        with self._transaction():
            self._of_this_log(seen)
            if self.log.size < seen.size:
                raise StaleStoreError(
                    WHAT,
                    "log",
                    f"has {self.log.size} entries, and a witness has seen {seen.size}: this is an old copy",
                    "give it the missing entries: keyquorum custodian restore",
                )
            if self.log.root(seen.size) != seen.root:
                raise TamperingError(WHAT, "log", f"is not the one that was signed with {seen.size} entries")
            self.log.keep(seen.size, newest.signed)
        self._current = True

    def take_cosigned(self, found: Verified) -> None:
        """Keep a checkpoint of this log that a witness cosigned; raises `TamperingError` for one of another history."""
        seen = found.checkpoint
        with self.writing():
            self._of_this_log(seen)
            if self.log.size < seen.size or self.log.root(seen.size) != seen.root:
                raise TamperingError("the checkpoint", "root", f"is not that of the first {seen.size} entries here")
            self.log.keep(seen.size, found.signed)

    def unsafe_without_witnesses(self) -> None:
        """Serve without comparing: a restored backup then releases epochs that were retired after it was made."""
        self._current = True

    def catch_up(self, newest: Verified, missing: Sequence[bytes]) -> None:
        """Bring an old copy forward by the entries it lacks, up to `newest`; raises `TamperingError`.

        What the entries say is done again: epochs retired, machines revoked, releases counted.
        """
        seen = newest.checkpoint
        with self._transaction():
            self._of_this_log(seen)
            if self.log.size + len(missing) != seen.size:
                raise TamperingError(
                    "the missing entries", "", f"{seen.size - self.log.size} are missing, {len(missing)} were given"
                )
            for body in missing:
                found = entry.parse(body)
                if found.number != self.log.size:
                    raise TamperingError("the missing entries", "number", f"{found.number} comes at {self.log.size}")
                self.log.append_body(found.number, body)
                apply(self._database, found)
            if self.log.root(seen.size) != seen.root:
                raise TamperingError("the missing entries", "", "do not lead to the checkpoint")
            self._database.execute("UPDATE pending SET closed = ? WHERE closed IS NULL", (entry.MAX_TIME,))
            self.log.keep(seen.size, newest.signed)
        self._current = True

    def _of_this_log(self, seen: Checkpoint) -> None:
        if seen.origin != self.origin:
            raise TamperingError("the checkpoint", "origin", f"is {seen.origin}, not {self.origin}")

    @property
    def current(self) -> bool:
        """Whether it was compared with what witnesses have seen, and so writes."""
        return self._current

    def backup(self, path: str) -> None:
        """Write a copy of the store as it is at one instant; raises `UsageError` if there is something at `path`.

        A copy is a store like this one: kept as carefully, and old as soon as it is made (`catch_up`).
        """
        with self.reading() as database:
            store_schema.new_file(path, database.backup).close()

    def examine(self, key: VerifierKey) -> LogReport:
        """Read the whole store and log; raises `TamperingError` for a damaged file or another's checkpoint."""
        with self.reading() as database:
            for pragma in ("integrity_check(1)", "foreign_key_check"):
                rows = database.execute(f"PRAGMA {pragma}").fetchall()
                if rows not in ([], [("ok",)]):
                    raise TamperingError(WHAT, "", f"is damaged: {rows[0][0]}")
            notes = [checkpoint.verify(note, key) for note in self.log.checkpoints()]
            return log_check.examine(self.log.bodies(), notes, self.log.leaves())


def fragment_key(fragment: FragmentName) -> tuple[str, bytes, int, int]:
    """Return the four columns that name a fragment."""
    return fragment.volume, fragment.set_id, fragment.epoch, fragment.index


def deposited(database: sqlite3.Connection, fragment: FragmentName) -> tuple[str, bytes, bytes, bytes, int] | None:
    """Return the row of a deposit: machine, sealed identity, policy, reference values, number of its entry."""
    query = """SELECT machine, sealed, policy, reference, number FROM deposit
        WHERE volume = ? AND set_id = ? AND epoch = ? AND idx = ?"""
    row: tuple[str, bytes, bytes, bytes, int] | None = database.execute(query, fragment_key(fragment)).fetchone()
    return row


def sha256(data: bytes) -> str:
    """Hash something for an entry of the log."""
    return hashlib.sha256(data).hexdigest()


def found_store(path: str, origin: str, who: Actor, at: int) -> Store:
    """Make a new store for the log `origin`; its first entry says who founded it. Raises `KeyquorumError`."""
    checkpoint.parse_text(Checkpoint(origin=origin, size=0, root=merkle.EMPTY_ROOT).text)

    def fill(database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        store_schema.make_tables(database)
        database.execute("INSERT INTO meta (name, value) VALUES ('origin', ?)", (origin,))
        StoredLog(database).append(entry.administration("founded", who, at, ""))
        database.execute("COMMIT")

    return Store(store_schema.new_file(path, fill), current=True)


def open_store(path: str) -> Store:
    """Open a store. It answers questions about its log, and writes nothing before `prove_current`."""
    database = store_schema.connect(path)
    try:
        return Store(database, current=False)
    except KeyquorumError:
        database.close()
        raise
