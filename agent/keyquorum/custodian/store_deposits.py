# SPDX-License-Identifier: Apache-2.0
"""What owners do with a store: they deposit, replace and retire, each only what is theirs (docs/custodian.md §2, §11).

That the owner signed is checked before (`depositing`); here it is decided whose the machine and the set are, in the
transaction that writes it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian.effects import papers_of
from keyquorum.custodian.entry import administration
from keyquorum.custodian.store import deposited, fragment_key, sha256
from keyquorum.errors import MalformedError, RefusedError, UsageError

if TYPE_CHECKING:
    import sqlite3

    from keyquorum.custodian.entry import Actor, Entry
    from keyquorum.custodian.store import Deposit, Store
    from keyquorum.model.fragment_name import FragmentName

MAX_SEALED = 4096
MAX_POLICY = 64 * 1024
_INSERT = """INSERT INTO deposit (volume, set_id, epoch, idx, machine, sealed, policy, reference, number)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_PAPERS = "SELECT name, highest FROM serial WHERE owner = ? AND kind = ? ORDER BY highest DESC"
_REMEMBER = """INSERT INTO serial (owner, kind, name, highest, hash) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (owner, kind, name) DO UPDATE SET highest = excluded.highest, hash = excluded.hash"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serial:
    """A signed policy of some kind by its name, its serial number, and the hash of the envelope (32 bytes)."""

    kind: str
    name: str
    serial: int
    hash: bytes


class Deposits:
    """The part of a store that owners use. `who` is the owner whose signature was checked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def admitted(self, machine: str) -> list[bytes]:
        """Return the keys of the owners who may deposit for a machine."""
        with self._store.reading() as database:
            return [key for (key,) in database.execute("SELECT key FROM owner WHERE machine = ?", (machine,))]

    def deposit(self, offered: Deposit, who: Actor, at: int, serials: tuple[Serial, ...] = ()) -> Entry:
        """Take a fragment's sealed identity, its release policy and reference values.

        Epochs only go forward (I10): none below the highest that was deposited for this set. The epochs before stay
        until they are retired, because the owner has not yet committed to the new one (I6). Raises `UsageError` for
        what the store forbids, `RefusedError` for what is not this owner's.
        """
        if not 0 < len(offered.sealed) <= MAX_SEALED or max(len(offered.policy), len(offered.reference)) > MAX_POLICY:
            raise MalformedError("the deposit", "", "has a wrong size")
        fragment = offered.fragment
        with self._store.writing() as database:
            highest, lowest = self._store.epochs(fragment)
            if fragment.epoch < max(highest, lowest):
                raise UsageError(f"epoch {fragment.epoch} is over: this set is at {max(highest, lowest)}")
            _demand_admitted(database, offered.machine, who)
            _demand_set(database, fragment, who, new=True)
            if deposited(database, fragment) is not None:
                raise UsageError("this fragment is deposited already", "deposit a new epoch")
            return self._take(database, offered, who, at, serials)

    def replace(self, offered: Deposit, who: Actor, at: int, serials: tuple[Serial, ...] = ()) -> Entry:
        """Give a deposit another release policy and other reference values; its sealed identity stays.

        `offered.sealed` is not looked at. Raises as `deposit` does.
        """
        if max(len(offered.policy), len(offered.reference)) > MAX_POLICY:
            raise MalformedError("the deposit", "", "has a wrong size")
        with self._store.writing() as database:
            row = deposited(database, offered.fragment)
            if row is None or row[0] != offered.machine:
                raise UsageError(f"no such fragment is deposited for {offered.machine}")
            _demand_admitted(database, offered.machine, who)
            _demand_set(database, offered.fragment, who, new=False)
            whole = type(offered)(offered.fragment, offered.machine, row[1], offered.policy, offered.reference)
            return self._take(database, whole, who, at, serials)

    def _take(
        self, database: sqlite3.Connection, offered: Deposit, who: Actor, at: int, serials: tuple[Serial, ...]
    ) -> Entry:
        """Write down what is allowed; the entry takes the place of the row before (`effects`)."""
        facts, fragment = offered.hashes(), offered.fragment
        _remember(database, serials, who)
        _demand_not_replaced(database, fragment, facts, who)
        draft = administration("deposited", who, at, offered.machine, fragment=fragment, facts=facts)
        found = self._store.note(draft)
        row = (offered.machine, offered.sealed, offered.policy, offered.reference, found.number)
        database.execute(_INSERT, (*fragment_key(fragment), *row))
        return found

    def retire(self, fragment: FragmentName, who: Actor, at: int) -> Entry:
        """Give up this epoch of the fragment's set and all before it, for every index; for ever."""
        with self._store.writing() as database:
            _demand_set(database, fragment, who, new=False)
            return self._store.note(administration("retired", who, at, "", fragment=fragment))


def _demand_admitted(database: sqlite3.Connection, machine: str, who: Actor) -> None:
    query = "SELECT 1 FROM machine WHERE name = ? AND revoked IS NULL"
    if database.execute(query, (machine,)).fetchone() is None:
        raise UsageError(f"no machine {machine} is enrolled")
    admitted = database.execute("SELECT key FROM owner WHERE machine = ?", (machine,))
    if who.key not in {sha256(key) for (key,) in admitted}:
        raise RefusedError(f"this owner is not admitted for {machine}", "an operator enrols a machine for its owner")


def _demand_set(database: sqlite3.Connection, fragment: FragmentName, who: Actor, *, new: bool) -> None:
    query = "SELECT owner FROM volume_epochs WHERE volume = ? AND set_id = ?"
    row = database.execute(query, (fragment.volume, fragment.set_id)).fetchone()
    if row is None and not new:
        raise UsageError("nothing of this set was ever deposited here")
    if row is not None and row[0] != who.key:
        raise RefusedError("this set is another owner's")


def _demand_not_replaced(
    database: sqlite3.Connection, fragment: FragmentName, facts: dict[str, str], who: Actor
) -> None:
    """Refuse what this fragment had and has no more: a signed message of the owner's, sent again (I10).

    Serials do not see it where the owner gave its policy another name, or after a restore.
    """
    offered = facts["policy-sha256"] + facts["reference-sha256"]
    had = database.execute(_PAPERS, (who.key, papers_of(fragment))).fetchall()
    for name, number in had[1:]:
        if name == offered:
            raise UsageError(
                f"this policy with these reference values, of entry {number}, was replaced by entry {had[0][1]}",
                "sign it under a higher serial",
            )


def _remember(database: sqlite3.Connection, serials: tuple[Serial, ...], who: Actor) -> None:
    """Refuse a policy that is older than one seen before, or another one under the same number (I10)."""
    for offered in serials:
        query = "SELECT highest, hash FROM serial WHERE owner = ? AND kind = ? AND name = ?"
        key = (who.key, offered.kind, offered.name)
        highest, known = database.execute(query, key).fetchone() or (0, b"")
        if offered.serial < highest or (offered.serial == highest and known != offered.hash):
            raise UsageError(
                f"{offered.kind} {offered.name} has serial {offered.serial}, and {highest} was seen before",
                "sign it under a higher serial",
            )
        database.execute(_REMEMBER, (*key, offered.serial, offered.hash))
