# SPDX-License-Identifier: Apache-2.0
"""The release policy: each rule allows and refuses, every mistake is a denial, and every verdict names every rule."""

from __future__ import annotations

import tomllib
import zoneinfo
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.custodian import approval, policy_format, release_policy
from keyquorum.custodian.approval import Approval, Pending
from keyquorum.custodian.release_policy import Request
from keyquorum.custodian.verdict import DENIED, PENDING, RELEASED, Verdict
from keyquorum.envelope.signing import Owner
from keyquorum.errors import MalformedError, TamperingError
from keyquorum.evidence.result import Outcome
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.model import strict_json
from unit.custodian.notes import FRAGMENT, private

OWNER, STRANGER = Owner(private(20)), Owner(private(21))
ANNA, BEN, CHRIS = (Owner(private(seed)) for seed in (30, 31, 32))
NOW = int(datetime(2027, 3, 3, 11, 0, tzinfo=UTC).timestamp())  # a Wednesday, noon in Berlin
PENDING_ENTRY = Pending(custodian="custodian.example/paris", number=41, entry=bytes(range(32)))

TOML = f"""
version = 1
name = "web"
serial = 7
issued = 2027-01-01
expires = 2027-06-30
volumes = ["{FRAGMENT.volume}"]
machines = ["web-1", "web-2"]
attestation = ["trusted"]
regions = {{ custodian = ["eu-west"], requester = ["eu-west", "eu-north"] }}
countries = {{ custodian = "any", requester = ["FR", "NO"] }}
operators = "any"
hours = {{ days = "mon-fri", from = "06:00", to = "20:00", zone = "Europe/Berlin" }}
limits = {{ per_hour = 6, total = 500 }}
[approvals]
needed = 2
within = "4h"
[approvals.of]
anna = "{ANNA.public.raw.hex()}"
ben = "{BEN.public.raw.hex()}"
chris = "{CHRIS.public.raw.hex()}"
"""
TABLE = strict_json.parse(policy_format.payload_of(tomllib.loads(TOML)), "", 1 << 20, MalformedError)
FREE = TABLE | {"approvals": "any"}


def signed(table: dict[str, Any], owner: Owner = OWNER, kind: str = policy_format.POLICY_TYPE) -> SignedPolicy:
    envelope = strict_json.serialise(owner.sign(kind, strict_json.serialise(table)))
    return SignedPolicy(envelope=envelope, signers=(OWNER.public,))


def answered(owner: Owner, operator: str, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "custodian": PENDING_ENTRY.custodian,
        "number": PENDING_ENTRY.number,
        "entry": PENDING_ENTRY.entry,
        "operator": operator,
        "answer": approval.APPROVE,
        "at": NOW - 60,
    }
    return strict_json.serialise(owner.sign(approval.APPROVAL_TYPE, Approval(**(values | changes)).payload()))


GOOD = Request(
    now=NOW,
    volume=FRAGMENT.volume,
    machine="web-1",
    attestation="trusted",
    custodian={"regions": "eu-west", "countries": "FR", "operators": "acme"},
    requester={"regions": "eu-north", "countries": "NO", "operators": "acme"},
    releases_in_hour=5,
    releases=499,
    pending=PENDING_ENTRY,
    approvals=(answered(ANNA, "anna"), answered(CHRIS, "chris")),
)
RULES = [
    "policy.signature", "policy.format", "policy.validity", "policy.serial", "policy.volume", "policy.machine",
    "policy.attestation", "policy.regions.custodian", "policy.regions.requester", "policy.countries.custodian",
    "policy.countries.requester", "policy.operators.custodian", "policy.operators.requester", "policy.hours",
    "policy.limits.hour", "policy.limits.total", "policy.approvals",
]  # fmt: skip


def decide(table: dict[str, Any] = TABLE, request: Request = GOOD, **changes: Any) -> Verdict:
    return release_policy.decide(signed(table), replace(request, **changes), zoneinfo.ZoneInfo)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.outcome is Outcome.FAILED]


def test_what_a_policy_allows() -> None:
    verdict = decide()
    assert (verdict.act, verdict.reason) == (RELEASED, "")
    assert [check.name for check in verdict.checks] == RULES
    waived = [check.name for check in verdict.checks if check.outcome is Outcome.WAIVED]
    assert waived == ["policy.countries.custodian", "policy.operators.custodian", "policy.operators.requester"]
    assert set(verdict.facts) == {"policy-sha256", "attestation"}


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "another volume": ("policy.volume", {"volume": FRAGMENT.volume.replace("6d", "6e")}),
    "another machine": ("policy.machine", {"machine": "db-1"}),
    "nobody": ("policy.machine", {"machine": ""}),
    "untrusted": ("policy.attestation", {"attestation": "untrusted"}),
    "unreachable": ("policy.attestation", {"attestation": "unreachable"}),
    "a word": ("policy.attestation", {"attestation": ""}),
    "custodian elsewhere": ("policy.regions.custodian", {"custodian": {"regions": "us-east"}}),
    "custodian nowhere": ("policy.regions.custodian", {"custodian": {}}),
    "requester elsewhere": ("policy.regions.requester", {"requester": {**GOOD.requester, "regions": "us-east"}}),
    "requester's country": ("policy.countries.requester", {"requester": {**GOOD.requester, "countries": "US"}}),
    "the hour's limit": ("policy.limits.hour", {"releases_in_hour": 6}),
    "the limit": ("policy.limits.total", {"releases": 500}),
    "a broken counter": ("policy.limits.total", {"releases": -1}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_policy_refuses(case: str) -> None:
    rule, changes = REFUSED[case]
    verdict = decide(**changes)
    assert verdict.act == DENIED
    assert failed(verdict) == [rule]
    assert verdict.reason.startswith(f"{rule}: expected ")
    assert [check.name for check in verdict.checks] == RULES, "all rules are shown, not only the first that fails"
    assert decide(FREE, **changes).act == DENIED


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def within_hours(text: str, **hours: Any) -> bool:
    table = FREE | {"hours": FREE["hours"] | hours, "issued": 0, "expires": instant("2028-01-01T00:00Z")}
    return decide(table, now=instant(text)).act == RELEASED


@pytest.mark.parametrize(
    ("text", "hours", "inside"),
    [
        ("2027-03-03T04:59:59Z", {}, False),
        ("2027-03-03T05:00:00Z", {}, True),
        ("2027-03-03T18:59:59Z", {}, True),
        ("2027-03-03T19:00:00Z", {}, False),
        ("2027-07-07T04:00:00Z", {}, True),  # summer: six o'clock there
        ("2027-07-07T03:59:59Z", {}, False),
        ("2027-03-06T12:00:00Z", {}, False),  # Saturday
        ("2027-03-06T12:00:00Z", {"days": "mon,sat"}, True),
        ("2027-03-07T12:00:00Z", {"days": "sat-mon"}, True),
        ("2027-03-03T12:00:00Z", {"days": "sat-mon"}, False),
        ("2027-03-06T01:00:00Z", {"days": "fri", "from": "22:00", "to": "04:00"}, True),  # Friday's night
        ("2027-03-05T01:00:00Z", {"days": "fri", "from": "22:00", "to": "04:00"}, False),
        ("2027-03-05T21:00:00Z", {"days": "fri", "from": "22:00", "to": "04:00"}, True),
        ("2027-03-03T22:59:59Z", {"from": "00:00", "to": "24:00"}, True),
        ("2027-03-01T01:00:00Z", {"days": "sun", "from": "22:00", "to": "04:00"}, True),  # Monday, Sunday's night
    ],
)
def test_hours(text: str, hours: dict[str, str], inside: bool) -> None:
    assert within_hours(text, **hours) is inside


def raises(error: Exception) -> Callable[[str], tzinfo]:
    def zone(_name: str) -> tzinfo:
        raise error

    return zone


@pytest.mark.parametrize("error", [KeyError("x"), zoneinfo.ZoneInfoNotFoundError("x"), ValueError("x"), OSError("x")])
def test_a_rule_that_cannot_be_evaluated_is_a_denial(error: Exception) -> None:
    verdict = release_policy.decide(signed(FREE), GOOD, raises(error))
    assert (verdict.act, failed(verdict)) == (DENIED, ["policy.hours"])
    assert "time zone Europe/Berlin is not known" in verdict.reason


@pytest.mark.parametrize("zone", ["Nowhere/None", "../../etc/passwd", "/etc/passwd"])
def test_a_zone_that_is_none(zone: str) -> None:
    assert decide(FREE | {"hours": FREE["hours"] | {"zone": zone}}).act == DENIED


def load(policy: SignedPolicy, now: int = NOW) -> list[str]:
    verdict = release_policy.decide(policy, replace(GOOD, now=now), zoneinfo.ZoneInfo)
    assert (verdict.act == RELEASED) == (not failed(verdict))
    return failed(verdict)


def test_when_and_whose_a_policy_counts() -> None:
    issued, expires = instant("2027-01-01T00:00Z"), instant("2027-06-30T00:00Z")
    whole = FREE | {"hours": "any"}
    assert (TABLE["issued"], TABLE["expires"]) == (issued, expires)
    assert [load(signed(whole), at) for at in (issued - 1, issued, expires - 1, expires)] == [
        ["policy.validity"], [], [], ["policy.validity"],
    ]  # fmt: skip
    assert load(replace(signed(TABLE), lowest_serial=7)) == []
    assert load(replace(signed(TABLE), lowest_serial=8)) == ["policy.serial"]
    assert load(signed(TABLE, STRANGER)) == ["policy.signature"]
    assert load(signed(TABLE, kind=approval.APPROVAL_TYPE)) == ["policy.signature"]
    assert load(replace(signed(TABLE), signers=())) == ["policy.signature"]
    for envelope in (b"", b"{}", b"x" * 100_000):
        assert load(SignedPolicy(envelope=envelope, signers=(OWNER.public,))) == ["policy.signature"]


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, 5000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_policy_counts(at: int, bit: int) -> None:
    policy = signed(TABLE)
    envelope = bytearray(policy.envelope)
    envelope[at % len(envelope)] ^= 1 << bit
    assert load(replace(policy, envelope=bytes(envelope))) == ["policy.signature"]


HOURS, ASKED = TABLE["hours"], TABLE["approvals"]
MALFORMED: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "unknown field": {"allow": "all"},
    "no volume": {"volumes": []},
    "any volume": {"volumes": "any"},
    "no machine": {"machines": []},
    "a machine twice": {"machines": ["a", "a"]},
    "numbers": {"machines": [1]},
    "no state": {"attestation": []},
    "any state": {"attestation": "any"},
    "the untrusted": {"attestation": ["trusted", "untrusted"]},
    "no region": {"regions": {"custodian": [], "requester": "any"}},
    "half a region": {"regions": {"custodian": ["x"]}},
    "null": {"hours": None},
    "days": {"hours": HOURS | {"days": "mon-fry"}},
    "no days": {"hours": HOURS | {"days": ""}},
    "open range": {"hours": HOURS | {"days": "mon-"}},
    "25 o'clock": {"hours": HOURS | {"to": "25:00"}},
    "after midnight": {"hours": HOURS | {"to": "24:01"}},
    "60 minutes": {"hours": HOURS | {"to": "12:60"}},
    "short": {"hours": HOURS | {"from": "6:00"}},
    "signs": {"hours": HOURS | {"from": "+6:00"}},
    "empty window": {"hours": HOURS | {"from": "06:00", "to": "06:00"}},
    "no window": {"hours": HOURS | {"from": "24:00", "to": "00:00"}},
    "no zone": {"hours": {name: HOURS[name] for name in ("days", "from", "to")}},
    "limit 0": {"limits": {"per_hour": 0, "total": 1}},
    "half a limit": {"limits": {"per_hour": 1}},
    "a limit as text": {"limits": {"per_hour": "1", "total": 1}},
    "true": {"limits": {"per_hour": True, "total": 1}},
    "needed 0": {"approvals": ASKED | {"needed": 0}},
    "more than there are": {"approvals": ASKED | {"needed": 4}},
    "nobody asked": {"approvals": ASKED | {"of": {}, "needed": 1}},
    "one key, two names": {"approvals": ASKED | {"of": {"anna": "00" * 32, "ben": "00" * 32}}},
    "no key": {"approvals": ASKED | {"of": {"anna": "00", "ben": "00" * 32}}},
    "for ever": {"approvals": ASKED | {"within": "32d"}},
    "no time": {"approvals": ASKED | {"within": "0h"}},
    "no unit": {"approvals": ASKED | {"within": "4"}},
    "ends before it begins": {"expires": TABLE["issued"]},
    "a date as text": {"expires": "2027-06-30"},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_policy_that_does_not_parse_is_a_denial(case: str) -> None:
    verdict = decide(TABLE | MALFORMED[case])
    assert (verdict.act, failed(verdict)) == (DENIED, ["policy.format"])
    with pytest.raises(MalformedError):
        policy_format.payload_of(TABLE | MALFORMED[case])


def test_a_forgotten_line_is_a_denial() -> None:
    for name in TABLE:
        verdict = decide({key: TABLE[key] for key in TABLE if key != name})
        assert (verdict.act, failed(verdict)) == (DENIED, ["policy.format"])


def test_toml() -> None:
    table = tomllib.loads(TOML)
    later = policy_format.parse(policy_format.payload_of(table | tomllib.loads("expires = 2027-06-30T12:00:00+02:00")))
    assert later.expires == instant("2027-06-30T10:00Z")
    odd: list[Any] = [table | tomllib.loads("expires = 2027-06-30T12:00:00"), table | {"limits": 1.5}, []]
    for wrong in odd:
        with pytest.raises(MalformedError):
            policy_format.payload_of(wrong)


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(sorted(TABLE)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["custodian", "of", "days", "x"]), inner, max_size=3),
        max_leaves=6,
    ),
)  # fmt: skip
def test_any_policy_gives_a_verdict(name: str, value: Any) -> None:
    verdict = decide(TABLE | {name: value})
    assert (verdict.act == RELEASED) == (not failed(verdict))
    assert verdict.act in {RELEASED, DENIED, PENDING}


# Approvals


def count(*approvals: bytes, **changes: Any) -> tuple[str, str]:
    verdict = decide(approvals=approvals, **changes)
    return verdict.act, verdict.checks[-1].actual


def test_who_has_approved() -> None:
    anna, ben = answered(ANNA, "anna"), answered(BEN, "ben")
    assert count(anna, ben) == (RELEASED, "anna, ben")
    assert count() == (PENDING, "nobody")
    assert count(anna) == (PENDING, "anna")
    assert count(anna, anna) == (PENDING, "anna")
    assert count(anna, answered(ANNA, "anna", at=NOW - 30)) == (PENDING, "anna")
    assert decide(approvals=()).within == 4 * 3600


def test_one_refusal_is_enough() -> None:
    no = answered(BEN, "ben", answer=approval.REFUSE)
    act, actual = count(answered(ANNA, "anna"), answered(CHRIS, "chris"), no)
    assert (act, actual) == (DENIED, "anna, chris; ben refused")


def test_people_are_not_asked_about_what_is_refused_anyway() -> None:
    verdict = decide(approvals=(), attestation="untrusted")
    assert (verdict.act, verdict.within) == (DENIED, 0)
    assert failed(verdict) == ["policy.attestation", "policy.approvals"]


def test_without_a_pending_entry_nothing_counts() -> None:
    assert count(*GOOD.approvals, pending=None) == (PENDING, "nobody")


WRONG: dict[str, bytes] = {
    "a stranger": answered(STRANGER, "ben"),
    "another's name": answered(ANNA, "ben"),
    "a name of none": answered(BEN, "dora"),
    "another custodian": answered(BEN, "ben", custodian="custodian.example/rome"),
    "another number": answered(BEN, "ben", number=42),
    "another entry": answered(BEN, "ben", entry=bytes(32)),
    "old": answered(BEN, "ben", at=NOW - 4 * 3600),
    "of the future": answered(BEN, "ben", at=NOW + approval.CLOCK_SKEW + 1),
    "another type": strict_json.serialise(BEN.sign(policy_format.POLICY_TYPE, b"{}")),
    "nothing": strict_json.serialise(BEN.sign(approval.APPROVAL_TYPE, b"{}")),
    "noise": b"\x00",
    "long": b" " * 10_000,
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_approval(case: str) -> None:
    act, actual = count(answered(ANNA, "anna"), WRONG[case])
    assert act == PENDING
    assert actual.startswith("anna; the approval: ")
    good = answered(BEN, "ben", at=NOW + approval.CLOCK_SKEW)
    assert count(answered(ANNA, "anna"), WRONG[case], good)[0] == RELEASED, "a wrong one does no harm either (I3)"


def test_what_an_approval_says() -> None:
    operators = policy_format.parse(strict_json.serialise(TABLE)).approvals
    assert operators is not None
    envelope = answered(BEN, "ben", reason="maintenance")
    found = approval.verify(envelope, operators.operators, PENDING_ENTRY, NOW, operators.within)
    assert (found.operator, found.reason, found.entry) == ("ben", "maintenance", PENDING_ENTRY.entry)
    for payload in (found.payload() + b" x", found.payload().replace(b'"approve"', b'"agree"')):
        with pytest.raises(TamperingError):
            approval.parse(payload)
