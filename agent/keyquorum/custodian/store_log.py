# SPDX-License-Identifier: Apache-2.0
"""The log as it lies in the store: entries, tree nodes, checkpoints (docs/custodian.md §8, §9).

Every method is part of the caller's transaction and lets SQLite's errors through to it. While somebody writes nobody
else does, so what was read or written once in a transaction is not read again (`hold`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, entry_size, merkle
from keyquorum.custodian.entry import MAX_NUMBER, parse
from keyquorum.custodian.store_schema import WHAT
from keyquorum.errors import TamperingError

_REMEMBERED = 512  # entries that were read, by their bytes: those that deposits were made by, looked at again and again
_NODES = 4096  # hashes that one transaction remembers
# Of a row of `checkpoint`: only its log signed it. Each further line of signatures begins with a dash (`note`).
BARE = "instr(substr(note, instr(note, x'0a0a') + 2), x'0ae2809420') = 0"

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyquorum.custodian.entry import Entry


@lru_cache(_REMEMBERED)
def _parsed(body: bytes) -> Entry:
    return parse(body)


class StoredLog:
    """The tables `entry`, `node` and `checkpoint` of one connection."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._held, self._nodes, self._size = False, dict[tuple[int, int], bytes](), -1

    def hold(self) -> None:
        """A transaction begins that alone may write, or a part of it was taken back."""
        self._held, self._nodes, self._size = True, {}, -1

    def let_go(self) -> None:
        """The transaction is over: others may write."""
        self._held, self._nodes, self._size = False, {}, -1

    @property
    def size(self) -> int:
        """Number of entries."""
        if self._size >= 0:
            return self._size
        (last,) = self._database.execute("SELECT max(number) FROM entry").fetchone()
        size = 0 if last is None else int(last) + 1
        if self._held:
            self._size = size
        return size

    def read(self, level: int, position: int) -> bytes:
        """Return a complete subtree's hash; raises `TamperingError` if it is not there."""
        found = self._nodes.get((level, position))
        if found is not None:
            return found
        query = "SELECT hash FROM node WHERE level = ? AND position = ?"
        row = self._database.execute(query, (level, position)).fetchone()
        if row is None:
            raise TamperingError(WHAT, "log", f"the tree has no node {position} of level {level}")
        self._remember((level, position, row[0]))
        return bytes(row[0])

    def _remember(self, *nodes: tuple[int, int, bytes]) -> None:
        if self._held:
            if len(self._nodes) > _NODES:
                self._nodes = {}
            self._nodes.update(((level, position), digest) for level, position, digest in nodes)

    def append(self, draft: Entry) -> Entry:
        """Number the entry, store it with the nodes that it completes, and return it; one too large is a refusal."""
        numbered = replace(draft, number=self.size)
        written = entry_size.fitting(numbered) if draft.checks else numbered.written()
        self.append_body(written.entry.number, written.checked())
        return written.entry

    def append_body(self, number: int, body: bytes) -> None:
        """Store an entry as it stands, with the nodes that it completes."""
        if not self._database.in_transaction:  # SQLite ends one by itself when a disk fails
            raise sqlite3.OperationalError("the transaction was taken back")
        self._database.execute("INSERT INTO entry (number, body) VALUES (?, ?)", (number, body))
        nodes = merkle.completed(number, merkle.leaf_hash(body), self.read)
        self._database.executemany("INSERT INTO node (level, position, hash) VALUES (?, ?, ?)", nodes)
        self._remember(*nodes)
        if self._held:
            self._size = number + 1

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
        return _parsed(self.body(number))

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
        """Keep a checkpoint, also in place of one of this size that has no more cosignatures."""
        row = self._database.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
        if row is not None and not checkpoint.replaces(note, row[0]):
            return
        self.add(size, note)

    def add(self, size: int, note: bytes) -> None:
        """Keep a checkpoint, whatever there is of this size."""
        self._database.execute("INSERT OR REPLACE INTO checkpoint (size, note) VALUES (?, ?)", (size, note))

    def checkpoints(self) -> list[bytes]:
        """Return the checkpoints that were kept, smallest first."""
        return [bytes(note) for (note,) in self._database.execute("SELECT note FROM checkpoint ORDER BY size")]
