# SPDX-License-Identifier: Apache-2.0
"""A custodian as witness of others' logs: it remembers what it cosigned before it gives the signature out (§9.2).

What was cosigned is an entry of the witness's own log, so its memory comes back with the missing entries too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, entry
from keyquorum.custodian.checkpoint import Checkpoint, ForkError, Verified
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

    from keyquorum.custodian.note import NoteSigner, VerifierKey
    from keyquorum.custodian.store import Store


class Witness:
    """The witness of this store's custodian; `signer` has the key for cosignatures, which is no log's key."""

    def __init__(self, store: Store, signer: NoteSigner) -> None:
        self._store, self._signer = store, signer

    def cosign(self, offered: bytes, proof: list[bytes], log: VerifierKey, at: int) -> bytes:
        """Return the note with a cosignature of the instant `at`, if it goes on from what was cosigned last.

        Raises `TamperingError` if it does not, and `ForkError` with both notes, which are kept beside an entry that
        says so, if the log has said two things. `UsageError` for the custodian's own log: nobody is a witness of that.
        """
        if log.name == self._store.origin:
            raise UsageError("a custodian is no witness of its own log")
        found = checkpoint.verify(offered, log)
        try:
            with self._store.writing() as database:
                seen = last_seen(database, log.name)
                checkpoint.follows(seen, found, proof)
                if seen is None or seen.checkpoint != found.checkpoint:
                    self._store.note(_entry("cosigned", log, found.checkpoint, at))
                database.execute("UPDATE witnessed SET note = ? WHERE origin = ?", (offered, log.name))
        except ForkError as fork:
            with self._store.writing() as database:
                kept = self._store.note(_entry("fork-seen", log, found.checkpoint, at))
                row = (kept.number, b"\n".join(fork.notes))
                database.execute("INSERT INTO evidence (number, result) VALUES (?, ?)", row)
            raise
        return checkpoint.cosign(found, self._signer, at)


def last_seen(database: sqlite3.Connection, origin: str) -> Verified | None:
    """Return what was cosigned last for a log; its note is empty if only the entry came back after a restore."""
    query = "SELECT size, root, note FROM witnessed WHERE origin = ?"
    row = database.execute(query, (origin,)).fetchone()
    if row is None:
        return None
    seen = Checkpoint(origin=origin, size=row[0], root=row[1])
    return Verified(checkpoint=seen, witnesses={}, signed=row[2])


def _entry(act: str, log: VerifierKey, seen: Checkpoint, at: int) -> Entry:
    return Entry(
        number=0,
        at=at,
        kind=entry.ADMINISTRATION,
        act=act,
        who=Actor(role="custodian", name=log.name, key=hashlib.sha256(log.public).hexdigest()),
        facts={"checkpoint-size": str(seen.size), "checkpoint-root": seen.root.hex()},
    )
