# SPDX-License-Identifier: Apache-2.0
"""A release from the question to the sealed answer, and one thing wrong at a time (docs/custodian.md §4)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyquorum.custodian import answering, approval, checkpoint, entry, merkle, receipt
from keyquorum.custodian.approval import Approval
from keyquorum.custodian.decision import question_of
from keyquorum.custodian.store import open_store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_releases import NONCE_LIFE, Releases
from keyquorum.envelope import dsse
from keyquorum.errors import KeyquorumError, RefusedError, TryAgainError
from keyquorum.evidence import result as attestation
from keyquorum.evidence.result import Outcome, Status
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.model import release_messages, strict_json
from keyquorum.model.deposit_messages import SealedIdentity
from keyquorum.model.release_messages import Denied, Released, TpmEvidence, Waiting
from unit.custodian.notes import FRAGMENT, LOG, ORIGIN
from unit.custodian.offices import (
    FLEET,
    NOW,
    SECRET,
    SIGNER,
    Custodian,
    WebServer,
    a_desk,
    a_key,
    owner_actor,
    policy,
    reference,
    sealed_identity,
)
from unit.custodian.stores import OPERATOR
from unit.evidence.tpm_maker import AK_ATTRIBUTES, BOOT, CLOCK, Key, selection, values_of

NOTHING = TpmEvidence(attest=b"", signature=b"", pcrs=())


def denied(custodian: Custodian, machine: WebServer, **changes: Any) -> str:
    """Ask, be denied, and return the name of the check; nothing of the fragment may be in the answer."""
    before = custodian.store.log.size
    said, found = custodian.ask(machine, **changes)
    assert isinstance(said.answer, Denied)
    assert (found.kind, found.act, found.number) == (entry.DECISION, "denied", said.answer.number)
    assert custodian.store.log.size == before + 2, "the challenge, the decision"
    assert said.receipt == b""
    shown = next((check for check in found.checks if check.outcome is Outcome.FAILED), None)
    if shown is not None:
        assert (shown.name, shown.expected, shown.actual) == (
            said.answer.check,
            said.answer.expected,
            said.answer.actual,
        )
    return said.answer.check


def test_a_machine_that_is_as_it_should_be_gets_its_fragment(custodian: Custodian, machine: WebServer) -> None:
    nonce = custodian.nonce(machine)
    request = machine.request(nonce)
    said = custodian.desk.release(machine.client, request)
    assert machine.opened(said, request) == SECRET
    payload = dsse.verify(dsse.parse(said.envelope, ""), release_messages.ANSWER_TYPE, (SIGNER.public,))
    answer = release_messages.parse_answer(payload, question_of(ORIGIN, request))
    assert answer == said.answer
    proven = receipt.verify(said.receipt, LOG.key)
    assert proven.entry.number == answer.number
    assert (proven.entry.act, proven.entry.machine, proven.entry.fragment) == ("released", "web-1", FRAGMENT)
    facts = proven.entry.facts
    assert facts["nonce-sha256"] == hashlib.sha256(nonce).hexdigest()
    assert facts["recipient-sha256"] == hashlib.sha256(machine.one_time_key).hexdigest()
    assert (facts["attestation"], facts["address"], facts["country"]) == ("trusted", "192.0.2.7", "NO")
    assert [check.name for check in proven.entry.checks][:9] == [
        "certificate", "nonce", "recipient", "machine", "epoch", "deposit", "deposit.unchanged", "evidence",
        "policy.signature",
    ]  # fmt: skip
    assert SECRET.hex() not in custodian.store.log.body(answer.number).decode()


def test_the_result_is_kept_beside_the_decision(custodian: Custodian, machine: WebServer) -> None:
    for wrong in ({}, {"evidence": NOTHING}):
        _, found = custodian.ask(machine, **wrong)
        query = "SELECT result FROM evidence WHERE number = ?"
        (kept,) = custodian.store._database.execute(query, (found.number,)).fetchone()
        assert found.facts["evidence-sha256"] == hashlib.sha256(kept).hexdigest()
        assert str(attestation.parse(kept).status) == found.facts["attestation"]


def test_an_answer_is_for_one_question(custodian: Custodian, machine: WebServer) -> None:
    request = machine.request(custodian.nonce(machine))
    said = custodian.desk.release(machine.client, request)
    other = request.with_(nonce=bytes(32))
    with pytest.raises(RefusedError):
        machine.opened(said, other)
    thief = WebServer()
    thief.one_time.view[1] ^= 1
    with pytest.raises(RefusedError):
        thief.opened(said, request)


def test_a_one_time_key_of_x_wing(custodian: Custodian, machine: WebServer) -> None:
    one_time = a_key(9)
    bare = machine.request(bytes(32)).with_(nonce=custodian.nonce(machine), kem="x-wing", key=one_time.public)
    question = question_of(ORIGIN, bare)
    answer = custodian.desk.release(machine.client, bare.with_(evidence=machine.quote(question))).answer
    assert isinstance(answer, Released)
    sealed = SealedIdentity(enc=answer.enc, ciphertext=answer.ciphertext)
    with one_time.open(sealed, b"keyquorum/v1/release\x00" + question) as found:
        assert bytes(found.view) == SECRET


def test_a_nonce_is_good_once_and_for_a_minute(custodian: Custodian, machine: WebServer) -> None:
    nonce = custodian.nonce(machine)
    request = machine.request(nonce)
    assert isinstance(custodian.desk.release(machine.client, request).answer, Released)
    for _ in range(2):
        answer = custodian.desk.release(machine.client, request).answer
        assert isinstance(answer, Denied)
        assert (answer.check, answer.actual) == ("nonce", f"spent at {NOW}")
    late = machine.request(custodian.nonce(machine))
    custodian.clock.now += NONCE_LIFE
    answer = custodian.desk.release(machine.client, late).answer
    assert isinstance(answer, Denied)
    assert answer.check == "nonce"
    unknown = custodian.desk.release(machine.client, machine.request(bytes(32))).answer
    assert isinstance(unknown, Denied)
    assert unknown.actual == "unknown"


def test_a_bad_request_spends_its_nonce_too(custodian: Custodian, machine: WebServer) -> None:
    nonce = custodian.nonce(machine)
    custodian.desk.release(machine.client, machine.request(nonce, evidence=NOTHING))
    answer = custodian.desk.release(machine.client, machine.request(nonce)).answer
    assert isinstance(answer, Denied)
    assert answer.check == "nonce"


def test_a_replayed_quote_is_refused(custodian: Custodian, machine: WebServer) -> None:
    old = machine.request(custodian.nonce(machine)).evidence
    assert denied(custodian, machine, evidence=old) == "tpm.attest.nonce"
    elsewhere = machine.request(custodian.nonce(machine))
    fragment = FRAGMENT.with_(index=9)
    assert elsewhere.with_(fragment=fragment).evidence == elsewhere.evidence
    relabelled = elsewhere.with_(fragment=fragment)
    answer = custodian.desk.release(machine.client, relabelled).answer
    assert isinstance(answer, Denied)
    assert answer.check == "nonce"


WRONG_MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "another boot": ({"events": (*BOOT, (4, 3, b"no measurement"), (4, 0x80000003, b"a rootkit"))}, "tpm.pcr.values"),
    "another key": ({"key": Key(number=5)}, "tpm.signature.value"),
    "another bank": ({"attest": {"selections": (selection("sha1", *range(8)),)}}, "tpm.quote.bank"),
    "relabelled": ({"attest": {"selections": (selection("sha256", 0, 16, *range(2, 8)),)}}, "tpm.quote.pcrs"),
    "two selections": (
        {"attest": {"selections": (selection("sha256", *range(7)), selection("sha256", 16))}},
        "tpm.quote.selections",
    ),
    "another place": ({"attest": {"signer": bytes(34)}}, "tpm.attest.signer"),
}


@pytest.mark.parametrize("name", WRONG_MACHINES)
def test_a_machine_that_is_not_as_it_should_be_gets_nothing(
    custodian: Custodian, machine: WebServer, name: str
) -> None:
    changes, check = WRONG_MACHINES[name]
    assert denied(custodian, replace(machine, **changes)) == check
    custodian.clock.now += NONCE_LIFE
    assert isinstance(custodian.ask(machine)[0].answer, Released), "and it is not held against the machine"


def test_an_unrestricted_attestation_key_counts_for_nothing(tmp_path: Path) -> None:
    """Even if somebody got one into the store."""
    loose = WebServer(key=Key(attributes=AK_ATTRIBUTES & ~0x10000))
    assert denied(Custodian(tmp_path, loose), loose) == "tpm.ak.attributes"


def test_counters_only_go_forward(custodian: Custodian, machine: WebServer) -> None:
    def counting(resets: int, clock: int) -> WebServer:
        return replace(machine, clock=ClockInfo(reset_count=resets, restart_count=1, clock=clock, safe=True))

    assert isinstance(custodian.ask(counting(7, 5000))[0].answer, Released)
    assert Releases(custodian.store).last_clock("web-1") == counting(7, 5000).clock
    assert denied(custodian, machine) == "tpm.clock.forward"
    assert CLOCK.reset_count < 7
    assert Releases(custodian.store).last_clock("web-1") == counting(7, 5000).clock, "an untrusted one is not kept"
    assert isinstance(custodian.ask(counting(8, 6000))[0].answer, Released)
    endless = counting(9, (1 << 64) - 1)
    assert isinstance(custodian.ask(endless)[0].answer, Released), "more than SQLite's integers hold"


def test_whoever_is_not_this_machine_gets_nothing(custodian: Custodian, machine: WebServer) -> None:
    for changes, reason in (
        ({"key": b"\x09" * 32}, "of no enrolled machine"),
        ({"name": "web-2"}, "of web-1, and says web-2"),
        ({"ours": False}, "of another authority"),
    ):
        stranger = replace(machine, client=replace(machine.client, **changes))
        with pytest.raises(RefusedError, match=reason):
            custodian.desk.challenge(stranger.client, FRAGMENT)
        assert (custodian.last.kind, custodian.last.act, custodian.last.reason) == ("challenge", "refused", reason)
        nonce = custodian.nonce(machine)
        answer = custodian.desk.release(stranger.client, machine.request(nonce)).answer
        assert isinstance(answer, Denied)
        assert (answer.check, answer.actual) == ("certificate", reason)
        again = custodian.desk.release(machine.client, machine.request(nonce)).answer
        assert isinstance(again, Denied)
        assert again.check == "nonce", "spent by whoever named it first"


def test_a_revoked_machine_gets_nothing(custodian: Custodian, machine: WebServer) -> None:
    request = machine.request(custodian.nonce(machine))
    custodian.store.revoke_machine("web-1", OPERATOR, NOW, "stolen")
    answer = custodian.desk.release(machine.client, request).answer
    assert isinstance(answer, Denied)
    assert (answer.check, answer.actual) == ("machine", "revoked")
    with pytest.raises(RefusedError, match="web-1 is revoked"):
        custodian.desk.challenge(machine.client, FRAGMENT)


def test_a_key_that_nothing_can_be_sealed_to_is_a_denial(custodian: Custodian, machine: WebServer) -> None:
    for kem, key in (
        ("x25519", b"junk"),
        ("x25519", machine.one_time_key[:-32] + bytes(32)),
        ("x-wing", machine.one_time_key),
    ):
        assert denied(custodian, machine, kem=kem, key=key) == "recipient"


def test_nobody_has_more_than_sixteen_unanswered_challenges(custodian: Custodian, machine: WebServer) -> None:
    for _ in range(16):
        custodian.nonce(machine)
    with pytest.raises(TryAgainError):
        custodian.nonce(machine)


def test_the_order_is_that_of_the_page(tmp_path: Path) -> None:
    """Everything is wrong at once; each answer names the earliest of what is still wrong."""
    machine = WebServer(events=(*BOOT, (4, 0x80000003, b"a rootkit")))
    custodian = Custodian(tmp_path, machine, policy(attestation=["unreachable"]))
    stranger = replace(machine, client=replace(machine.client, name="web-2"))
    request = machine.request(bytes(32), key=b"junk")
    seen = []
    for who, asked in (
        (stranger, request),
        (machine, request),
        (machine, machine.request(custodian.nonce(machine), key=b"junk")),
        (machine, machine.request(custodian.nonce(machine, FRAGMENT.with_(index=8)), FRAGMENT.with_(index=8))),
        (machine, machine.request(custodian.nonce(machine))),
        (WebServer(), WebServer().request(custodian.nonce(machine))),
    ):
        answer = custodian.desk.release(who.client, asked).answer
        assert isinstance(answer, Denied)
        seen.append(answer.check)
    assert seen == ["certificate", "nonce", "recipient", "deposit", "tpm.pcr.values", "policy.attestation"]


def test_a_policy_may_let_people_release_without_evidence(tmp_path: Path, machine: WebServer) -> None:
    people = {"needed": 1, "of": {"anna": FLEET.public.raw.hex()}, "within": "1h"}
    custodian = Custodian(tmp_path, machine, policy(attestation=["unreachable"], approvals=people))
    said, found = custodian.ask(machine, evidence=NOTHING)
    assert isinstance(said.answer, Waiting)
    assert (said.answer.number, found.act) == (found.number, "pending")
    assert found.facts["attestation"] == str(Status.UNREACHABLE)
    again, _ = custodian.ask(machine, evidence=NOTHING)
    assert isinstance(again.answer, Waiting)
    assert again.answer.number == said.answer.number
    assert denied(custodian, machine) == "policy.attestation", "this one wants people and not a machine's word"


def test_who_approved_a_trusted_machine_approved_no_silent_one(tmp_path: Path, machine: WebServer) -> None:
    """Otherwise it asks as what its owner wants, is approved, boots something else and shows no evidence."""
    people = {"needed": 1, "of": {"anna": FLEET.public.raw.hex()}, "within": "1h"}
    custodian = Custodian(tmp_path, machine, policy(attestation=["trusted", "unreachable"], approvals=people))
    said, found = custodian.ask(machine)
    assert isinstance(said.answer, Waiting)
    assert found.facts["attestation"] == str(Status.TRUSTED)
    number, leaf = said.answer.number, merkle.leaf_hash(custodian.store.log.body(said.answer.number))
    word = Approval(custodian=ORIGIN, number=number, entry=leaf, operator="anna", answer="approve", at=NOW)
    envelope = strict_json.serialise(FLEET.sign(approval.APPROVAL_TYPE, word.payload()))
    answering.answer(custodian.store, number, envelope, NOW, {})
    silent, _ = custodian.ask(machine, evidence=NOTHING)
    assert isinstance(silent.answer, Waiting)
    custodian.clock.now += 60
    assert isinstance(custodian.ask(machine)[0].answer, Released)


def test_a_stranger_of_an_enrolled_machines_name_is_not_it_in_the_log(custodian: Custodian, machine: WebServer) -> None:
    stranger = replace(machine.client, key=bytes(32), ours=False)
    custodian.desk.release(stranger, machine.request(custodian.nonce(machine)))
    assert (custodian.last.who.role, custodian.last.who.name, custodian.last.machine) == ("unknown", "web-1", "")


def test_reference_values_of_another_owner_do_not_count(tmp_path: Path, machine: WebServer) -> None:
    custodian = Custodian(tmp_path, machine, values=reference(expires=NOW))
    assert denied(custodian, machine) == "policy.validity"
    custodian.store._database.execute("DELETE FROM owner")
    assert denied(custodian, machine) == "policy.signature"


def test_reference_values_that_are_replaced_in_between_are_looked_at(
    custodian: Custodian, machine: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {str(pcr): ["00" * 32] for pcr in values_of(BOOT)}
    other = replace(custodian.deposit, reference=reference(pcrs=wrong, serial=8))
    looking = Releases.look
    elsewhere = open_store(custodian.path)  # another process's: nothing is written where a snapshot is read
    elsewhere.unsafe_without_witnesses()

    def look(releases: Releases, ask: Any) -> Any:
        found = looking(releases, ask)
        Deposits(elsewhere).replace(other, owner_actor(FLEET), NOW)
        return found

    nonce = custodian.nonce(machine)
    monkeypatch.setattr(Releases, "look", look)
    answer = custodian.desk.release(machine.client, machine.request(nonce)).answer
    assert isinstance(answer, Denied)
    assert answer.check == "tpm.pcr.values"


def test_what_was_sealed_for_another_fragment_is_not_released_as_this_one(
    custodian: Custodian, machine: WebServer
) -> None:
    """An owner's mistake, or a row that somebody moved together with its entry: the seal does not open."""
    moved = sealed_identity(custodian.sealing, fragment=FRAGMENT.with_(index=7)).serialise()
    fragment = FRAGMENT.with_(index=6)
    Deposits(custodian.store).deposit(
        replace(custodian.deposit, fragment=fragment, sealed=moved), owner_actor(FLEET), NOW
    )
    request = machine.request(custodian.nonce(machine, fragment), fragment)
    with pytest.raises(KeyquorumError, match="a deposit does not open"):
        custodian.desk.release(machine.client, request)
    assert custodian.last.act == "released", "of which nobody received anything"


def test_a_store_that_was_not_compared_answers_nothing(custodian: Custodian, machine: WebServer) -> None:

    nonce = custodian.nonce(machine)
    old = open_store(custodian.path)
    desk = a_desk(old, custodian.office)
    with pytest.raises(TryAgainError):
        desk.challenge(machine.client, FRAGMENT)
    with pytest.raises(TryAgainError):
        desk.release(machine.client, machine.request(nonce))
    old.prove_current(checkpoint.verify(custodian.store.sign_checkpoint(LOG), LOG.key))
    assert isinstance(desk.release(machine.client, machine.request(nonce)).answer, Released)
    old.close()


def test_a_sealing_key_that_is_gone_is_no_denial(custodian: Custodian, machine: WebServer) -> None:
    class GoneError(KeyquorumError):
        pass

    def gone(*_: object) -> None:
        raise GoneError("the token was removed")

    custodian.sealing.open = gone  # type: ignore[assignment,method-assign]
    request = machine.request(custodian.nonce(machine))
    with pytest.raises(GoneError):
        custodian.desk.release(machine.client, request)


def test_whatever_keeps_the_rules_from_being_evaluated_is_a_denial_that_can_be_read(
    custodian: Custodian, machine: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(*_: object) -> None:
        raise KeyquorumError("x" * 1000 + "\n")

    monkeypatch.setattr("keyquorum.custodian.release_policy.decide", worse)
    request = machine.request(custodian.nonce(machine))
    said = custodian.desk.release(machine.client, request)
    payload = dsse.verify(dsse.parse(said.envelope, ""), release_messages.ANSWER_TYPE, (SIGNER.public,))
    found = release_messages.parse_answer(payload, question_of(ORIGIN, request))
    assert isinstance(found, Denied)
    assert (found.check, found.actual[:3]) == ("evaluation", "xxx")
    assert custodian.last.act == "denied"
