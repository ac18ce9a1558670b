# SPDX-License-Identifier: Apache-2.0
"""The log as it lies in the store: entries, tree nodes, checkpoints (docs/custodian.md §8, §9).

Every method is part of the caller's transaction and lets SQLite's errors through to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyquorum.custodian import merkle
from keyquorum.custodian.entry import MAX_NUMBER, parse
from keyquorum.custodian.store_schema import WHAT
from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from keyquorum.custodian.entry import Entry


class StoredLog:
    """The tables `entry`, `node` and `checkpoint` of one connection."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @property
    def size(self) -> int:
        """Number of entries."""
        (last,) = self._database.execute("SELECT max(number) FROM entry").fetchone()
        return 0 if last is None else int(last) + 1

    def read(self, level: int, position: int) -> bytes:
        """Return a complete subtree's hash; raises `TamperingError` if it is not there."""
        query = "SELECT hash FROM node WHERE level = ? AND position = ?"
        row = self._database.execute(query, (level, position)).fetchone()
        if row is None:
            raise TamperingError(WHAT, "log", f"the tree has no node {position} of level {level}")
        return bytes(row[0])

    def append(self, draft: Entry) -> Entry:
        """Number the entry, store it with the nodes that it completes, and return it."""
        found = replace(draft, number=self.size)
        self.append_body(found.number, found.serialise())
        return found

    def append_body(self, number: int, body: bytes) -> None:
        """Store an entry as it stands."""
        self._database.execute("INSERT INTO entry (number, body) VALUES (?, ?)", (number, body))
        nodes = merkle.completed(number, merkle.leaf_hash(body), self.read)
        self._database.executemany("INSERT INTO node (level, position, hash) VALUES (?, ?, ?)", nodes)

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` entries."""
        return merkle.root(size, self.read)

    def body(self, number: int) -> bytes:
        """Return an entry as it stands; raises `TamperingError` if it is not there or not what the tree has."""
        row = self._database.execute("SELECT body FROM entry WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise TamperingError(WHAT, "log", f"there is no entry {number}")
        if merkle.leaf_hash(row[0]) != self.read(0, number):
            raise TamperingError(WHAT, "log", f"entry {number} was changed")
        return bytes(row[0])

    def entry(self, number: int) -> Entry:
        """Return an entry, parsed."""
        return parse(self.body(number))

    def bodies(self, start: int = 0, end: int = MAX_NUMBER) -> Iterator[bytes]:
        """Yield the entries from `start` to before `end` as they stand, unchecked."""
        query = "SELECT body FROM entry WHERE number >= ? AND number < ? ORDER BY number"
        for (body,) in self._database.execute(query, (start, end)):
            yield bytes(body)

    def leaves(self) -> list[bytes]:
        """Return the leaf hashes that were kept."""
        query = "SELECT hash FROM node WHERE level = 0 ORDER BY position"
        return [bytes(digest) for (digest,) in self._database.execute(query)]

    def keep(self, size: int, note: bytes) -> None:
        """Keep a checkpoint, in place of one of this size with fewer cosignatures."""
        self._database.execute("INSERT OR REPLACE INTO checkpoint (size, note) VALUES (?, ?)", (size, note))

    def checkpoints(self) -> list[bytes]:
        """Return the checkpoints that were kept, smallest first."""
        return [bytes(note) for (note,) in self._database.execute("SELECT note FROM checkpoint ORDER BY size")]
