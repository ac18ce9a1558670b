# SPDX-License-Identifier: Apache-2.0
"""Taking an operator's answer to a request that waits: only whom the deposit's policy names, by their key (docs §6).

An answer that could not count is refused here and now. In the store it would hold the operator's place.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyquorum.custodian import approval, merkle, policy_format
from keyquorum.custodian.approval import Pending
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.store import Deposit, deposited
from keyquorum.custodian.store_releases import Releases
from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError, UsageError
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.model import strict_json
from keyquorum.model.fragment_name import FragmentName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.custodian.entry import Entry
    from keyquorum.custodian.policy_format import Approvals
    from keyquorum.custodian.store import Store

_POLICY = "the release policy"


def pending(store: Store, number: int) -> Pending:
    """Return what an answer to request `number` must be for; raises `UsageError` if nothing of this number waits."""
    with store.reading() as database:
        row = database.execute("SELECT 1 FROM pending WHERE number = ? AND closed IS NULL", (number,)).fetchone()
    if row is None:
        raise UsageError(f"no request {number} waits for an answer", "keyquorum custodian list")
    return Pending(custodian=store.origin, number=number, entry=merkle.leaf_hash(store.log.body(number)))


def answer(store: Store, number: int, envelope: bytes, at: int, known: Mapping[str, bytes]) -> Entry:
    """Note an operator's signed answer; raises `TamperingError` for one that would not count, `UsageError`.

    `known` are the operators of the custodian's settings with their keys; if there are any, nobody else may answer.
    """
    waiting = pending(store, number)
    asked = _approvals(store, number)
    found = approval.verify(envelope, asked.operators, waiting, at, asked.within)
    if known and known.get(found.operator) != asked.operators[found.operator].raw:
        raise UsageError(
            f"{found.operator} is no operator of this custodian, by this key", "operators of custodian.toml"
        )
    key = hashlib.sha256(asked.operators[found.operator].raw).hexdigest()
    who = Actor(role="operator", name=found.operator, key=key)
    approved = found.answer == approval.APPROVE
    return Releases(store).answer_pending(number, envelope, who, at, approved=approved)


def _approvals(store: Store, number: int) -> Approvals:
    """Return who may answer, by the policy of the deposit that is asked for."""
    query = "SELECT volume, set_id, epoch, idx FROM pending WHERE number = ?"
    with store.reading() as database:
        row = database.execute(query, (number,)).fetchone()
        fragment = FragmentName(volume=row[0], set_id=row[1], epoch=row[2], index=row[3])
        held = deposited(database, fragment)
    if held is None:
        raise UsageError(f"what request {number} asked for is not deposited any more")
    deposit = Deposit(fragment, *held[:4])
    owner = Releases(store).owner_of(deposit)
    if not owner:
        raise UsageError(f"the owner of what request {number} asked for is not admitted any more")
    table = strict_json.parse(deposit.policy, _POLICY, MAX_ENVELOPE, TamperingError)
    payload = dsse.verify(dsse.parse(table, _POLICY), policy_format.POLICY_TYPE, (dsse.PublicKey(raw=owner),))
    asked = policy_format.parse(payload).approvals
    if asked is None:
        raise UsageError(f"the release policy of request {number} asks nobody any more")
    return asked
