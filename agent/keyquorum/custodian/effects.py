# SPDX-License-Identifier: Apache-2.0
"""What entries of the log do to the other tables; the same for an entry just made and for one that a backup lacked.

Only what must hold after a restore is made from entries: which epochs are given up, which policies were replaced, which
machines are revoked, which were renewed when, how often a fragment was released, what was cosigned for others.
Fragments that were deposited after the backup cannot come back this way: an entry has no secret, and their owners
deposit them anew (docs/custodian.md §8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.custodian.checkpoint import MAX_SIZE
from keyquorum.custodian.merkle import HASH
from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    import sqlite3

    from keyquorum.custodian.entry import Actor, Entry
    from keyquorum.model.fragment_name import FragmentName

_RENEWAL = "renewal"  # the kind of the rows in the table `serial` that machines have as their owners


def apply(database: sqlite3.Connection, found: Entry) -> None:
    """Do what an entry says, within the transaction that appends it."""
    action = _ACTIONS.get((found.kind, found.act))
    if action is not None:
        action(database, found)


def papers_of(fragment: FragmentName) -> str:
    """Return under which kind the table `serial` has the policies and reference values that a fragment had.

    They are named by their hashes, and in the order of the entries that brought them.
    """
    return f"papers of {fragment.volume} {fragment.set_id.hex()} {fragment.epoch} {fragment.index}"


def _deposited(database: sqlite3.Connection, found: Entry) -> None:
    """Note the epoch and the papers, and forget the row that this one replaces: after a restore it is a stale one."""
    if found.fragment is not None:
        name = found.fragment
        database.execute(
            """INSERT INTO volume_epochs (volume, set_id, highest, lowest, owner) VALUES (?, ?, ?, 1, ?)
            ON CONFLICT (volume, set_id) DO UPDATE SET highest = max(highest, excluded.highest)""",
            (name.volume, name.set_id, name.epoch, found.who.key),
        )
        database.execute(
            "DELETE FROM deposit WHERE volume = ? AND set_id = ? AND epoch = ? AND idx = ?",
            (name.volume, name.set_id, name.epoch, name.index),
        )
        policy, reference = found.facts.get("policy-sha256", ""), found.facts.get("reference-sha256", "")
        database.execute(
            """INSERT INTO serial (owner, kind, name, highest, hash) VALUES (?, ?, ?, ?, zeroblob(32))
            ON CONFLICT (owner, kind, name) DO UPDATE SET highest = excluded.highest""",
            (found.who.key, papers_of(name), policy + reference, found.number),
        )


def _retired(database: sqlite3.Connection, found: Entry) -> None:
    if found.fragment is not None:
        volume, set_id, epoch = found.fragment.volume, found.fragment.set_id, found.fragment.epoch
        database.execute(
            "UPDATE volume_epochs SET lowest = max(lowest, ?) WHERE volume = ? AND set_id = ?",
            (epoch + 1, volume, set_id),
        )
        database.execute("DELETE FROM deposit WHERE volume = ? AND set_id = ? AND epoch <= ?", (volume, set_id, epoch))


def _revoked(database: sqlite3.Connection, found: Entry) -> None:
    database.execute("UPDATE machine SET revoked = ? WHERE name = ?", (found.at, found.machine))


def _released(database: sqlite3.Connection, found: Entry) -> None:
    if found.fragment is not None:
        name = found.fragment
        database.execute(
            """INSERT INTO release (number, volume, set_id, epoch, idx, machine, at)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (found.number, name.volume, name.set_id, name.epoch, name.index, found.machine, found.at),
        )


def _cosigned(database: sqlite3.Connection, found: Entry) -> None:
    try:
        size, root = int(found.facts["checkpoint-size"]), bytes.fromhex(found.facts["checkpoint-root"])
    except (KeyError, ValueError):
        raise TamperingError("the log entry", "facts", "do not say which checkpoint was cosigned") from None
    if len(root) != HASH or not 0 <= size <= MAX_SIZE:
        raise TamperingError("the log entry", "facts", "do not say which checkpoint was cosigned")
    database.execute(
        """INSERT INTO witnessed (origin, size, root, note) VALUES (?, ?, ?, x'')
        ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = x''""",
        (found.who.name, size, root),
    )


def _renewed(database: sqlite3.Connection, found: Entry) -> None:
    database.execute(
        """INSERT INTO serial (owner, kind, name, highest, hash) VALUES (?, ?, ?, ?, zeroblob(32))
        ON CONFLICT (owner, kind, name) DO UPDATE SET highest = excluded.highest""",
        (found.who.key, _RENEWAL, found.who.name, found.number),
    )


def last_renewal(database: sqlite3.Connection, machine: Actor) -> int | None:
    """Return the number of the entry by which a machine was renewed last, None if it never was."""
    query = "SELECT highest FROM serial WHERE owner = ? AND kind = ? AND name = ?"
    row = database.execute(query, (machine.key, _RENEWAL, machine.name)).fetchone()
    return None if row is None else int(row[0])


_ACTIONS = {
    ("administration", "cosigned"): _cosigned,
    ("administration", "deposited"): _deposited,
    ("administration", "renewed-machine"): _renewed,
    ("administration", "retired"): _retired,
    ("administration", "revoked-machine"): _revoked,
    ("release", "released"): _released,
}
