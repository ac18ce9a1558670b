# SPDX-License-Identifier: Apache-2.0
"""The best receipt for an entry: one that witnesses stand for, if any does (docs/custodian.md §9.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, receipt
from keyquorum.custodian.store_log import BARE

if TYPE_CHECKING:
    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.note import NoteSigner, VerifierKey
    from keyquorum.custodian.store import Store

# How many checkpoints one question may cost: of those that anybody cosigned, and of all. Each release leaves one.
_MOST, _MOST_SEEN = 64, 100_000


def prove(store: Store, number: int, log: NoteSigner, witnesses: tuple[VerifierKey, ...]) -> tuple[bytes, Verified]:
    """Return the receipt of entry `number`, which is there, and the checkpoint in it.

    That is the newest that has the entry and that one of `witnesses` cosigned, else one of the log as it is now.
    """
    found = _cosigned(store, number, log.key, witnesses)
    if found is None:
        found = checkpoint.verify(store.sign_checkpoint(log), log.key)
    body, proof = store.receipt_parts(number, found.checkpoint.size)
    return receipt.serialise(body, number, proof, found.signed), found


def _cosigned(store: Store, number: int, log: VerifierKey, witnesses: tuple[VerifierKey, ...]) -> Verified | None:
    if not witnesses:
        return None
    query = f"""SELECT note FROM (SELECT note FROM checkpoint WHERE size > ? ORDER BY size DESC LIMIT {_MOST_SEEN})
        WHERE NOT {BARE} LIMIT {_MOST}"""  # noqa: S608
    with store.reading() as database:
        for (signed,) in database.execute(query, (number,)):
            found = checkpoint.verify(signed, log, witnesses)
            if found.witnesses:
                return found
    return None
