# SPDX-License-Identifier: Apache-2.0
"""What a store forgets after a while, beside a log that forgets nothing (docs/custodian.md §8.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import entry
from keyquorum.custodian.store_log import BARE

if TYPE_CHECKING:
    from keyquorum.custodian.store import Store

DAY = 86400
DEFAULT_DAYS, MOST_DAYS = 400, 36500
_AT_ONCE = 200  # rows of one transaction: a release waits for no longer one


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """What may go at once: numbers of the entries whose evidence is old, sizes of old checkpoints."""

    evidence: list[int]
    checkpoints: list[int]

    @property
    def more(self) -> bool:
        """Whether there may be more to go."""
        return _AT_ONCE in {len(self.evidence), len(self.checkpoints)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows went, and whether there are more to go."""

    evidence: int
    checkpoints: int
    more: bool


def find(store: Store, now: int, keep_days: int) -> Old:
    """Look for some of what is older than `keep_days` at the instant `now` (seconds since 1970).

    It may take long in an old store, and so is done before anybody has to wait: reading holds up nobody.
    """
    with store.reading() as database:
        end = _first_since(store, now - keep_days * DAY)
        query = """SELECT number FROM evidence JOIN entry USING (number)
            WHERE number < ? AND instr(body, CAST('"act":"fork-seen"' AS BLOB)) = 0 LIMIT ?"""
        evidence = database.execute(query, (end, _AT_ONCE)).fetchall()
        query = f"""SELECT size FROM checkpoint
            WHERE size <= ? AND size < (SELECT max(size) FROM checkpoint) AND {BARE} LIMIT ?"""  # noqa: S608
        sizes = database.execute(query, (end, _AT_ONCE)).fetchall()
    return Old(evidence=[number for (number,) in evidence], checkpoints=[size for (size,) in sizes])


def prune(store: Store, old: Old) -> Pruned:
    """Delete what was found to be old.

    Attestation results go; both notes of a fork stay, they are a proof. Of the log's own checkpoints those go that no
    witness cosigned, also not since they were found, but never the newest. Raises what keeps the store from writing.
    """
    with store.writing() as database:
        database.executemany("DELETE FROM evidence WHERE number = ?", [(number,) for number in old.evidence])
        query = f"DELETE FROM checkpoint WHERE size = ? AND {BARE}"  # noqa: S608
        gone = database.executemany(query, [(size,) for size in old.checkpoints]).rowcount
    return Pruned(evidence=len(old.evidence), checkpoints=max(gone, 0), more=old.more)


def _first_since(store: Store, instant: int) -> int:
    """Return the number of the first entry that is not before an instant, by halves; clocks seldom go back."""
    low, high = 0, store.log.size
    while low < high:
        middle = (low + high) // 2
        if entry.parse(store.log.body(middle)).at < instant:
            low = middle + 1
        else:
            high = middle
    return low
