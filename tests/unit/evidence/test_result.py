# SPDX-License-Identifier: Apache-2.0
"""The attestation result: three answers, no contradictions, one JSON form (docs/attestation.md §3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.envelope import dsse
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, UnavailableError
from keyquorum.evidence import result
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import AttestationResult, Check, Link, Outcome, Status
from unit.evidence.tpm_maker import OWNER

SPEC = {"a": "spec a", "b": "spec b"}
PASSED = Check(name="a", spec="spec a", expected="1", actual="1", outcome=Outcome.PASSED)
FAILED = Check(name="b", spec="spec b", expected="1", actual="2", outcome=Outcome.FAILED)
WAIVED = Check(name="b", spec="spec b", expected="nothing", actual="2", outcome=Outcome.WAIVED)
LINK = Link(subject="CN=ek", issuer="CN=maker", sha256="ab" * 32, not_after=253_402_300_799)
GOOD = AttestationResult(
    technology="tpm",
    status=Status.TRUSTED,
    at=5,
    checks=(PASSED, WAIVED),
    chain=(LINK,),
    claims={"tpm.pcr7": "00"},
    last_trusted=5,
)


def changed(**changes: Any) -> AttestationResult:
    table = {name: getattr(GOOD, name) for name in AttestationResult.__slots__} | changes
    return AttestationResult(**table)


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": ()},
        {"checks": (PASSED, FAILED)},
        {"checks": (WAIVED,)},
        {"status": Status.UNTRUSTED},
        {"status": Status.UNREACHABLE, "reason": "silent"},
        {"status": Status.UNREACHABLE, "checks": (), "chain": (), "claims": {}},
    ],
    ids=["no checks", "failed", "all waived", "no reason", "unreachable and checked", "unreachable without reason"],
)
def test_a_result_cannot_contradict_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(TamperingError) as caught:
        changed(**changes)
    assert caught.value.where == "status"


def test_what_a_relying_party_gets() -> None:
    GOOD.demand()
    with pytest.raises(RefusedError) as refused:
        changed(status=Status.UNTRUSTED, checks=(PASSED, FAILED), reason="b: no").demand()
    assert (refused.value.message, refused.value.tampered) == ("the evidence does not hold: b: no", True)
    silent = result.unreachable("tpm", 9, "no answer in 2 s", last_trusted=5)
    with pytest.raises(UnavailableError) as unavailable:
        silent.demand()
    assert unavailable.value.message == "no evidence could be had: no answer in 2 s"
    assert (silent.status, silent.last_trusted) == (Status.UNREACHABLE, 5)


def test_a_story_that_stops_early_is_not_trusted() -> None:
    checks = Checks(SPEC)
    assert checks.demand("a", expected="1", actual="1", holds=True)
    found = checks.conclude("tpm", 5, frozenset({"a", "b"}))
    assert (found.status, found.reason) == (Status.UNTRUSTED, "b: was not reached")
    checks.waive("b", "by the policy")
    assert checks.conclude("tpm", 5, frozenset({"a", "b"})).status == Status.TRUSTED
    assert not checks.demand("a", expected="1", actual="2", holds=False)
    assert checks.conclude("tpm", 5, frozenset({"a", "b"})).reason == "a: expected 1, found 2"


def test_nothing_is_claimed_of_who_is_not_trusted() -> None:
    checks = Checks(SPEC)
    checks.claim("tpm.ak", "00")
    checks.demand("a", expected="1", actual="2", holds=False)
    assert checks.conclude("tpm", 5, frozenset("a")).claims == {}


def test_a_check_without_a_reference_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Checks(SPEC).demand("c", expected="1", actual="1", holds=True)


def test_the_json_form() -> None:
    table = json.loads(result.serialise(GOOD))
    assert table == {
        "version": 1,
        "technology": "tpm",
        "status": "trusted",
        "at": 5,
        "last_trusted": 5,
        "reason": "",
        "checks": [
            {"name": "a", "spec": "spec a", "expected": "1", "actual": "1", "outcome": "passed"},
            {"name": "b", "spec": "spec b", "expected": "nothing", "actual": "2", "outcome": "waived"},
        ],
        "chain": [{"subject": "CN=ek", "issuer": "CN=maker", "sha256": "ab" * 32, "not_after": 253_402_300_799}],
        "claims": {"tpm.pcr7": "00"},
    }
    assert result.parse(result.serialise(GOOD)) == GOOD


def test_a_signed_result_is_one_of_ours_or_nothing() -> None:
    envelope = OWNER.sign(result.RESULT_TYPE, result.serialise(GOOD))
    payload = dsse.verify(dsse.parse(envelope, "result"), result.RESULT_TYPE, (OWNER.public,))
    assert result.parse(payload) == GOOD
    with pytest.raises(TamperingError):
        dsse.verify(dsse.parse(envelope, "result"), dsse.SET_TYPE, (OWNER.public,))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("status", "maybe"),
        ("status", "untrusted"),
        ("at", -1),
        ("also", 1),
        ("reason", "a\x1b[2J"),
        ("reason", "x" * 257),
        ("reason", 1),
        ("claims", {f"a{number}": "b" for number in range(129)}),
        ("checks", [json.loads(result.serialise(GOOD))["checks"][0]] * 129),
        ("checks", []),
        ("checks", [{"name": "a", "spec": "s", "expected": "1", "actual": "2", "outcome": "failed"}]),
        ("checks", [{"name": "a", "spec": "s", "expected": "1", "actual": "2", "outcome": "passed", "x": 1}]),
        ("chain", [{"subject": "s", "issuer": "i", "sha256": "ab", "not_after": 1}]),
        ("claims", {"a": 1}),
        ("claims", {"a": "x" * 257}),
    ],
    ids=lambda part: str(part)[:30],
)
def test_a_form_that_is_not_ours_is_refused(path: str, value: object) -> None:
    table = json.loads(result.serialise(GOOD)) | {path: value}
    with pytest.raises(TamperingError):
        result.parse(json.dumps(table).encode())


def test_too_large_is_not_parsed() -> None:
    with pytest.raises(TamperingError):
        result.parse(b" " * (result.MAX_RESULT + 1))


TEXTS = st.text(max_size=300).map(result.printable)
CHECKS = st.builds(
    Check,
    name=st.sampled_from(["a", "tpm.ak.bound"]),
    spec=TEXTS,
    expected=TEXTS,
    actual=TEXTS,
    outcome=st.sampled_from([Outcome.FAILED, Outcome.PASSED]),
)


@settings(deadline=None)
@given(checks=st.lists(CHECKS, max_size=8), reason=TEXTS, claims=st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_every_result_reads_back(checks: list[Check], reason: str, claims: dict[str, str]) -> None:
    made = changed(status=Status.UNTRUSTED, checks=tuple(checks), reason=reason, claims=claims)
    assert result.parse(result.serialise(made)) == made


@given(text=st.text(max_size=400))
def test_every_text_is_made_printable(text: str) -> None:
    shown = result.printable(text)
    assert shown.isprintable()
    assert 0 < len(shown) <= result.MAX_TEXT


@given(data=st.binary(max_size=200))
def test_garbage_is_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(KeyquorumError):
        result.parse(data)
