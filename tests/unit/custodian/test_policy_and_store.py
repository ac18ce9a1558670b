# SPDX-License-Identifier: Apache-2.0
"""Policy, store and approvals together: a request that waits, is approved, opens once, and is all in the log."""

from __future__ import annotations

import tomllib
import zoneinfo

from keyquorum.custodian import approval, merkle, policy_format, release_policy, store
from keyquorum.custodian.approval import Approval, Pending
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.release_policy import Request
from keyquorum.custodian.store import Deposit, Store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_releases import Answer, Releases, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.envelope.signing import Owner
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.model import strict_json
from unit.custodian.notes import LOG, ORIGIN, private
from unit.custodian.stores import OWNER, asking, epoch
from unit.custodian.stores import a_store as empty_store
from unit.custodian.test_release_policy import ANNA, BEN, GOOD, NOW, TOML

VOLUME_OWNER = Owner(private(20))


def ask(made: Store, at: int) -> Answer:
    def judge(deposit: Deposit, standing: Standing) -> Verdict:
        waiting = None
        if standing.pending is not None:
            entry = merkle.leaf_hash(made.log.body(standing.pending))
            waiting = Pending(custodian=ORIGIN, number=standing.pending, entry=entry)
        request = Request(
            now=at,
            volume=deposit.fragment.volume,
            machine=deposit.machine,
            attestation="trusted",
            custodian=GOOD.custodian,
            requester=GOOD.requester,
            releases_in_hour=standing.releases_in_hour,
            releases=standing.releases,
            pending=waiting,
            approvals=standing.approvals,
        )
        policy = SignedPolicy(envelope=deposit.policy, signers=(VOLUME_OWNER.public,))
        return release_policy.decide(policy, request, zoneinfo.ZoneInfo)

    return Releases(made).decide(asking(fragment=epoch(4)), at, judge)


def approve(made: Store, number: int, owner: Owner, name: str, at: int) -> None:
    entry = merkle.leaf_hash(made.log.body(number))
    said = Approval(custodian=ORIGIN, number=number, entry=entry, operator=name, answer=approval.APPROVE, at=at)
    envelope = strict_json.serialise(owner.sign(approval.APPROVAL_TYPE, said.payload()))
    who = Actor(role="operator", name=name, key=store.sha256(owner.public.raw))
    Releases(made).answer_pending(number, envelope, who, at, approved=True)


def test_from_the_question_to_the_fragment(tmp_path: object) -> None:
    made = empty_store(tmp_path)
    payload = policy_format.payload_of(tomllib.loads(TOML))
    policy = strict_json.serialise(VOLUME_OWNER.sign(policy_format.POLICY_TYPE, payload))
    Deposits(made).deposit(Deposit(fragment=epoch(4), machine="web-1", sealed=b"sealed", policy=policy), OWNER, NOW)

    waiting = ask(made, NOW)
    assert (waiting.entry.act, waiting.sealed, waiting.pending) == ("pending", b"", waiting.entry.number)
    assert waiting.pending is not None
    approve(made, waiting.pending, ANNA, "anna", NOW + 10)
    again = ask(made, NOW + 20)
    assert (again.entry.act, again.sealed, again.pending) == ("pending", b"", waiting.pending)
    approve(made, waiting.pending, BEN, "ben", NOW + 30)
    answer = ask(made, NOW + 40)
    assert (answer.entry.act, answer.sealed) == ("released", b"sealed")
    assert [check.name for check in answer.entry.checks][:5] == [
        "machine", "epoch", "deposit", "deposit.unchanged", "policy.signature",
    ]  # fmt: skip
    assert answer.entry.facts["policy-sha256"] == store.sha256(policy)
    assert ask(made, NOW + 50).entry.act == "pending", "once"
    night = ask(made, NOW + 12 * 3600)
    assert (night.entry.act, night.pending) == ("denied", None)
    assert night.entry.reason.startswith("policy.hours: expected ")
    made.examine(LOG.key).demand()
    made.close()
