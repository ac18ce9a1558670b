# SPDX-License-Identifier: Apache-2.0
"""A custodian that leaves judging to an attestation service: what it believes of that, and what it makes of silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from keyquorum.custodian import appraisal_messages, site_settings
from keyquorum.custodian.admission import Limits
from keyquorum.custodian.appraisal_messages import APPRAISAL_TYPE, Appraisal, AppraisalRequest
from keyquorum.custodian.appraiser import ASKING, Appraiser
from keyquorum.custodian.appraising import Bureau, Verifier
from keyquorum.custodian.decision import Client
from keyquorum.custodian.http_head import Head
from keyquorum.custodian.site_settings import Address, AppraiserSettings
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.envelope import dsse
from keyquorum.envelope.signing import Owner
from keyquorum.errors import KeyquorumError, TamperingError, UnavailableError
from keyquorum.evidence.result import Status
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.model import release_messages, strict_json
from keyquorum.model.release_messages import Denied, Released, Waiting
from unit.custodian.notes import private
from unit.custodian.offices import FLEET, NOW, Custodian, WebServer, a_desk, owner_actor, policy, reference
from unit.custodian.test_site_settings import FULL

SIGNER, STRANGER = Owner(private(50)), Owner(private(51))
NAME = "appraiser.example"


@dataclass
class Service:
    """The real verifier, in memory; `spoil` changes what comes back, `change` what is signed."""

    now: int = NOW
    signer: Owner = SIGNER
    change: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[bytes], bytes] = bytes
    asked: list[bytes] = field(default_factory=list)

    def ask(self, path: str, body: bytes) -> bytes:
        assert path == "/v1/appraise"
        self.asked.append(body)
        envelope = Verifier(name=NAME, signer=SIGNER, now=lambda: self.now).appraise(body)
        if self.change or self.signer is not SIGNER:
            made = replace(appraisal_messages.parse_payload(dsse.parse(envelope, "x").payload), **self.change)
            envelope = self.signer.sign(APPRAISAL_TYPE, appraisal_messages.payload(made))
        return self.spoil(release_messages.answer_body(envelope))


def custodian(tmp_path: Path, machine: WebServer, service: Any, **changes: Any) -> Custodian:
    found = Custodian(tmp_path, machine, **changes)
    found.office = replace(found.office, appraiser=Appraiser(name=NAME, key=SIGNER.public, ask=service.ask))
    found.desk = a_desk(found.store, found.office)
    return found


def test_a_trusted_machine_gets_its_fragment_and_the_log_says_who_judged(tmp_path: Path) -> None:
    machine, service = WebServer(), Service()
    said, entry = custodian(tmp_path, machine, service).ask(machine)
    assert isinstance(said.answer, Released)
    assert len(service.asked) == 1
    (check,) = [check for check in entry.checks if check.name == "appraiser"]
    assert (check.actual, str(check.outcome)) == (f"{NAME}, key {SIGNER.public.key_id}", "passed")


def test_an_untrusted_one_gets_the_check_that_failed(tmp_path: Path) -> None:
    machine = WebServer(attest={"magic": 1})
    said, _ = custodian(tmp_path, machine, Service()).ask(machine)
    assert isinstance(said.answer, Denied)
    assert said.answer.check == "tpm.attest.magic"


def test_counters_go_forward_whoever_judges(tmp_path: Path) -> None:
    machine, service = WebServer(), Service()
    found = custodian(tmp_path, machine, service)
    assert isinstance(found.ask(machine)[0].answer, Released)
    back = WebServer(clock=ClockInfo(reset_count=1, restart_count=0, clock=1, safe=True))
    said, _ = found.ask(back)
    assert isinstance(said.answer, Denied)
    assert said.answer.check == "tpm.clock.forward"
    assert json.loads(service.asked[1])["last"] is not None


def test_the_policy_is_the_owners_also_there(tmp_path: Path) -> None:
    machine = WebServer()
    said, _ = custodian(tmp_path, machine, Service(), values=reference(expires=NOW)).ask(machine)
    assert isinstance(said.answer, Denied)
    assert said.answer.check == "policy.validity"


def cut(body: bytes) -> bytes:
    return body[:-1]


def flipped(body: bytes) -> bytes:
    envelope, _ = release_messages.parse_answer_body(body)
    signature = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
    return release_messages.answer_body(envelope)


UNBELIEVED: dict[str, tuple[dict[str, Any], str]] = {
    "of another name": ({"change": {"appraiser": "other.example"}}, "appraiser"),
    "to another request": ({"change": {"request": bytes(32)}}, "request"),
    "to another question": ({"change": {"question": bytes(32)}}, "question"),
    "by another policy": ({"change": {"policy": bytes(32)}}, "policy"),
    "that is over": ({"change": {"expires": NOW}}, "expires"),
    "of the future": ({"change": {"issued": NOW + 301}}, "expires"),
    "by a clock that is behind": ({"now": NOW - 61}, "expires"),
    "by another key": ({"signer": STRANGER}, "signed by"),
    "with another signature": ({"spoil": flipped}, "does not match"),
    "cut": ({"spoil": cut}, "not JSON"),
    "of nothing": ({"spoil": lambda _body: b"{}"}, "envelope"),
}


@pytest.mark.parametrize("wrong", UNBELIEVED)
def test_a_result_that_does_not_count_is_no_trust(tmp_path: Path, wrong: str) -> None:
    machine = WebServer()
    changes, words = UNBELIEVED[wrong]
    said, entry = custodian(tmp_path, machine, Service(**changes)).ask(machine)
    assert isinstance(said.answer, Denied)
    assert (said.answer.check, said.answer.actual) == ("policy.attestation", "unreachable")
    (summary,) = [check for check in entry.checks if check.name == "evidence"]
    assert words in summary.actual


def test_a_clock_that_is_a_little_ahead_is_forgiven(tmp_path: Path) -> None:
    machine = WebServer()
    said, _ = custodian(tmp_path, machine, Service(now=NOW + 299)).ask(machine)
    assert isinstance(said.answer, Released)


class Silent:
    """Nobody answers."""

    def ask(self, _path: str, _body: bytes) -> bytes:
        raise UnavailableError("connection refused")


def test_silence_is_no_trust_but_people_may_be_asked(tmp_path: Path) -> None:
    machine = WebServer()
    said, _ = custodian(tmp_path, machine, Silent()).ask(machine)
    assert isinstance(said.answer, Denied)
    assert said.answer.actual == "unreachable"


def test_people_may_be_asked_where_the_owner_wants_it(tmp_path: Path) -> None:
    approvals = {"needed": 1, "of": {"anna": FLEET.public.raw.hex()}, "within": "1h"}
    asking = policy(attestation=["trusted", "unreachable"], approvals=approvals)
    machine = WebServer()
    said, _ = custodian(tmp_path, machine, Silent(), policy_envelope=asking).ask(machine)
    assert isinstance(said.answer, Waiting)


def test_a_deposit_that_is_replaced_meanwhile_is_asked_for_again(tmp_path: Path) -> None:
    """While the store is locked nobody on the network is waited for."""
    machine, service = WebServer(), Service()
    found = custodian(tmp_path, machine, service)
    honest = service.ask

    def replacing(path: str, body: bytes) -> bytes:
        other = replace(found.deposit, reference=reference(serial=8))
        if len(service.asked) == 0:
            Deposits(found.store).replace(other, owner_actor(FLEET), NOW)
        return honest(path, body)

    found.office = replace(found.office, appraiser=Appraiser(name=NAME, key=SIGNER.public, ask=replacing))
    found.desk = a_desk(found.store, found.office)
    said, _ = found.ask(machine)
    assert isinstance(said.answer, Denied)
    assert "replaced while" in said.answer.actual
    assert isinstance(found.ask(machine)[0].answer, Released)


def test_a_service_that_is_silent_costs_less_than_a_machine_waits() -> None:
    assert ASKING.step + ASKING.whole < Limits().work


# The service


def a_request(**changes: Any) -> AppraisalRequest:
    machine = WebServer()
    question = bytes(range(32))
    made: dict[str, Any] = {
        "question": question,
        "evidence": machine.quote(question),
        "area": machine.enrolled.attestation_key,
        "qualified_name": machine.enrolled.qualified_name,
        "reference": json.loads(reference()),
        "signer": FLEET.public.raw,
        "last": None,
    }
    return AppraisalRequest(**(made | changes))


def test_requests_and_results_are_read_as_they_are_written() -> None:
    clock = ClockInfo(reset_count=3, restart_count=1, clock=77, safe=False)
    for request in (a_request(), a_request(last=clock), a_request(signer=b"")):
        assert appraisal_messages.parse_request(appraisal_messages.serialise_request(request)) == request
    found = appraised(a_request())
    assert appraisal_messages.parse_payload(appraisal_messages.payload(found)) == found


def appraised(request: AppraisalRequest) -> Appraisal:
    verifier = Verifier(name=NAME, signer=SIGNER, now=lambda: NOW)
    envelope = verifier.appraise(appraisal_messages.serialise_request(request))
    return appraisal_messages.parse_payload(dsse.verify(dsse.parse(envelope, "x"), APPRAISAL_TYPE, (SIGNER.public,)))


def test_what_the_service_judges_by() -> None:
    assert appraised(a_request()).result.status is Status.TRUSTED
    for changes in ({"signer": STRANGER.public.raw}, {"signer": b""}):
        assert appraised(a_request(**changes)).result.reason.startswith("policy.signature")
    assert appraised(a_request(question=bytes(32))).result.reason.startswith("tpm.attest.nonce")
    assert appraised(a_request()).clock is not None
    assert appraised(a_request(question=bytes(32))).clock is None


@pytest.mark.parametrize("change", [{"version": 2}, {"more": 1}, {"signer": "00"}, {"signer": None}, {"last": 7}])
def test_requests_that_are_none(change: dict[str, Any]) -> None:
    table = json.loads(appraisal_messages.serialise_request(a_request())) | change
    with pytest.raises(TamperingError):
        appraisal_messages.parse_request(strict_json.serialise(table))
    without = {name: value for name, value in table.items() if name != "last"}
    with pytest.raises(TamperingError):
        appraisal_messages.parse_request(strict_json.serialise(without))


def test_who_is_answered_and_what() -> None:
    bureau = Bureau(Verifier(name=NAME, signer=SIGNER, now=lambda: NOW), Limits(at_once=6, per_minute=1))
    client, body = Client(key=bytes(32), name="paris"), appraisal_messages.serialise_request(a_request())
    post = Head(method="POST", path="/v1/appraise")

    def status(who: Client | None, head: Head, data: bytes = body) -> int:
        return bureau.respond(who, "192.0.2.1", head, data, 20.0).status

    assert status(client, post) == 200
    assert status(None, post) == 403
    assert status(client, Head(method="POST", path="/v1/release")) == 404
    assert status(client, Head(method="GET", path="/v1/appraise")) == 405
    assert status(client, post, b"{}") == 400
    assert [status(client, post) for _ in range(3)] == [200, 200, 429]


def test_the_setting_is_written_and_read_and_strict() -> None:
    service = AppraiserSettings(at=Address(host=NAME, port=8445), name=NAME, key=b"\x05" * 32)
    full = replace(FULL, appraiser=service)
    text = site_settings.serialise(full)
    assert site_settings.parse(text, "x") == full
    assert site_settings.parse(site_settings.serialise(FULL), "x").appraiser is None
    for wrong in (text.replace(b"05" * 32, b"05" * 31), text.replace(b"at = ", b"to = "), text + b"more = 1\n"):
        with pytest.raises(KeyquorumError):
            site_settings.parse(wrong, "x")
