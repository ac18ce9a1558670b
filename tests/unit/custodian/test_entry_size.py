# SPDX-License-Identifier: Apache-2.0
"""What does not fit into an entry is denied, shortly, and is in the log all the same (docs/custodian.md §9.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyquorum.custodian import entry, entry_size, merkle, receipt
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.custodian.store import Deposit, Store
from keyquorum.custodian.store_listing import counts
from keyquorum.custodian.store_releases import Releases, Standing
from keyquorum.custodian.verdict import DENIED, PENDING, RELEASED, Verdict
from keyquorum.evidence.result import Check, Outcome
from keyquorum.model import release_messages
from keyquorum.model.release_messages import Denied, Released
from unit.custodian.notes import FRAGMENT, LOG, NOW
from unit.custodian.offices import Custodian, WebServer, a_desk, policy
from unit.custodian.stores import a_store, asking

RARE = "\U0001f512" * 250  # twelve bytes each in JSON


@pytest.fixture
def made(tmp_path: object) -> Iterator[Store]:
    found = a_store(tmp_path)
    yield found
    found.close()


def check(number: int, outcome: Outcome = Outcome.PASSED, text: str = RARE) -> Check:
    return Check(name=f"policy.{number}", spec="§5", expected=text, actual=text, outcome=outcome)


def decided(made: Store, verdict: Verdict) -> tuple[Entry, bytes, int | None]:
    def judge(_deposit: Deposit, _standing: Standing) -> Verdict:
        return verdict

    answer = Releases(made).decide(asking(), NOW, judge)
    return answer.entry, answer.sealed, answer.pending


@pytest.mark.parametrize("act", [RELEASED, PENDING])
@pytest.mark.parametrize(
    "checks",
    [
        tuple(map(check, range(20))),
        tuple(check(number, text="n" * 256) for number in range(57)),  # an entry, but none whose receipt is sent
        tuple(check(number, text="n") for number in range(entry.MAX_CHECKS + 1)),
    ],
)
def test_what_would_be_granted_is_denied(made: Store, act: str, checks: tuple[Check, ...]) -> None:
    reason = "" if act == RELEASED else "asks people"
    found, sealed, pending = decided(made, Verdict(act=act, reason=reason, checks=checks, within=60, evidence=b"{}"))
    assert (found.kind, found.act, sealed, pending) == (entry.DECISION, DENIED, b"", None)
    assert [one.name for one in found.checks if one.outcome is Outcome.FAILED] == ["entry.size"]
    assert found.reason.startswith("entry.size: expected at most")
    assert made.log.entry(found.number) == found
    assert counts(made)["releases"] == counts(made)["requests_pending"] == 0
    kept = made._database.execute("SELECT number FROM evidence").fetchall()
    assert kept == [(found.number,)], "the evidence that was judged is kept beside it"


def test_a_denial_keeps_the_check_that_failed_first(made: Store) -> None:
    checks = (check(0), check(1, Outcome.FAILED), check(2, Outcome.FAILED), *map(check, range(3, 20)))
    found, _, _ = decided(made, Verdict(act=DENIED, reason="policy.1", checks=checks))
    assert [one.name for one in found.checks] == ["policy.1", "entry.size"]
    assert found.reason == "policy.1"


def test_a_refusal_for_a_stranger_with_long_labels_fits() -> None:
    long = dict.fromkeys(("region", "country", "operator", "address"), RARE)
    draft = Entry(
        number=0,
        at=NOW,
        kind=entry.CHALLENGE,
        act="refused",
        who=Actor(role="unknown", name=RARE),
        fragment=FRAGMENT,
        reason=RARE,
        checks=(check(1, Outcome.FAILED),) * 6,
        facts=long,
    )
    found = entry_size.fitting(draft).entry
    assert (found.act, found.checks[-1].name) == ("refused", "entry.size")
    assert len(found.serialise()) <= entry_size.MAX_MADE


def test_what_fits_stands_as_it_is() -> None:
    draft = replace(
        Entry(number=0, at=NOW, kind=entry.DECISION, act=DENIED, who=Actor(role="machine", name="web-1")),
        checks=(check(1, Outcome.FAILED),),
    )
    assert entry_size.fitting(draft).entry is draft


def test_the_receipt_of_the_largest_entry_in_the_largest_log_is_sent() -> None:
    signed = b"x" * (1024)  # a checkpoint with the log's own signature has half of it
    made = receipt.serialise(b"x" * entry_size.MAX_MADE, entry.MAX_NUMBER, [bytes(32)] * 53, signed)
    envelope = {"payload": "x" * 3000}
    _, proof = release_messages.parse_answer_body(release_messages.answer_body(envelope, made))
    assert proof == made


def test_a_machine_gets_a_typed_denial(tmp_path: Path, machine: WebServer) -> None:
    """Labels and names that an owner may choose, and a request that would else be granted."""
    rare = [RARE[:59] + str(number) for number in range(5)]
    both = {"custodian": rare, "requester": rare}
    allowed = policy(machines=["web-1", *rare], regions=both, countries=both, operators=both)
    labels = dict.fromkeys(("region", "country", "operator"), rare[0])
    machine.client = replace(machine.client, labels=labels)
    custodian = Custodian(tmp_path, machine, allowed)
    custodian.desk = a_desk(custodian.store, replace(custodian.office, labels=labels))
    said, found = custodian.ask(machine)
    assert isinstance(said.answer, Denied)
    assert (said.answer.check, said.answer.number, said.receipt) == ("entry.size", found.number, b"")
    assert merkle.leaf_hash(found.serialise()) == custodian.store.log.read(0, found.number)


def test_a_machine_whose_receipt_fits_gets_its_fragment(custodian: Custodian, machine: WebServer) -> None:
    said, found = custodian.ask(machine)
    assert isinstance(said.answer, Released)
    assert receipt.verify(said.receipt, LOG.key).entry == found
