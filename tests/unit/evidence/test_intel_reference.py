# SPDX-License-Identifier: Apache-2.0
"""Reference values of TDX and SGX: what is not signed, not understood or judges nothing is a denial (§5 of the page)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import intel_checks, intel_reference
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.intel_reference import INTEL_TYPE, EnclaveRule
from keyquorum.evidence.signed_policy import SignedPolicy, accept
from keyquorum.model import strict_json
from unit.evidence.intel_maker import PPID, Scene, policy, signed_policy
from unit.evidence.tpm_maker import NOW, OWNER, signed


def read(tee: str = "tdx", body: dict[str, Any] | None = None, /, **changes: Any) -> intel_reference.IntelReference:
    return intel_reference.parse(json.dumps(policy(tee, body, **changes)).encode())


def test_a_policy_is_read() -> None:
    td = read()
    assert (td.name, td.serial, td.tee, td.tcb.lowest) == ("enclaves", 7, "tdx", 17)
    assert td.any_attributes == frozenset()
    assert "mrseam" not in td.values
    assert td.xfam == 0x602E7
    assert td.platforms.allowed == frozenset({PPID})
    enclave = read("sgx")
    assert (len(enclave.enclaves), enclave.enclaves[0].isvsvn, enclave.xfam) == (1, 3, None)
    by_hash = read("sgx", {"identities": [{"mrenclave": "ab" * 32}]})
    assert by_hash.enclaves == (EnclaveRule(mrenclave=b"\xab" * 32),)


def test_what_is_loosened_must_be_written() -> None:
    for tee, part in (("tdx", "td"), ("sgx", "enclave")):
        table = policy(tee)
        for path in ((), ("tcb",), ("platforms",), (part,), (part, "attributes")):
            inner = table
            for name in path:
                inner = inner[name]
            for name in list(inner):
                value = inner.pop(name)
                with pytest.raises(TamperingError):
                    intel_reference.parse(strict_json.serialise(table))
                inner["unknown"] = value
                with pytest.raises(TamperingError):
                    intel_reference.parse(strict_json.serialise(table))
                del inner["unknown"]
                inner[name] = value
        intel_reference.parse(strict_json.serialise(table))


def attributes(**changes: str) -> dict[str, str]:
    table: dict[str, str] = policy()["td"]["attributes"]
    return table | {name.replace("_", "-"): value for name, value in changes.items()}


def tcb(**changes: Any) -> dict[str, Any]:
    return {"statuses": {}, "advisories": {}, "evaluation": 0} | changes


UNJUDGED = dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"), "unjudged")
REFUSED: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "judges nothing": (UNJUDGED, {}),
    "no value": ({"mrtd": []}, {}),
    "short value": ({"mrtd": ["00"]}, {}),
    "upper case": ({"mrtd": ["AB" * 48]}, {}),
    "another word": ({"mrtd": "any"}, {}),
    "null value": ({"mrtd": None}, {}),
    "events of mrtd": ({"mrtd": {"events": ["00" * 48]}}, {}),
    "no event": ({"rtmr0": {"events": []}}, {}),
    "unjudged events": ({"rtmr0": {"events": "unjudged"}}, {}),
    "short event": ({"rtmr0": {"events": ["00"]}}, {}),
    "events and more": ({"rtmr0": {"events": ["00" * 48], "values": []}}, {}),
    "debug on": ({"attributes": attributes(debug="on")}, {}),
    "sept-ve-disable off": ({"attributes": attributes(sept_ve_disable="off")}, {}),
    "xfam as number": ({"xfam": 3}, {}),
    "revoked is taken": (None, {"tcb": tcb(statuses={"Revoked": NOW})}),
    "up to date is taken": (None, {"tcb": tcb(statuses={"UpToDate": NOW})}),
    "unknown status": (None, {"tcb": tcb(statuses={"Fine": NOW})}),
    "a status for ever": (None, {"tcb": tcb(statuses={"OutOfDate": None})}),
    "advisories as list": (None, {"tcb": tcb(advisories=["INTEL-SA-00001"])}),
    "advisory of a control character": (None, {"tcb": tcb(advisories={"\x1b": NOW})}),
    "no platform": (None, {"platforms": {"allowed": [], "denied": []}}),
    "platform of 6 bytes": (None, {"platforms": {"allowed": ["00" * 6], "denied": []}}),
    "denied of 5 bytes": (None, {"platforms": {"allowed": None, "denied": ["00" * 5]}}),
    "nothing denied": (None, {"platforms": {"allowed": None, "denied": None}}),
    "version": (None, {"version": 2}),
    "tee": (None, {"tee": "snp"}),
    "serial": (None, {"serial": 0}),
    "accepts all": (None, {"accept_all": True}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case: str) -> None:
    body, changes = REFUSED[case]
    with pytest.raises(TamperingError):
        read("tdx", body, **changes)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"mrsigner": "00" * 32}],
        [{"mrsigner": "00" * 32, "isvprodid": 1}],
        [{"mrenclave": "00" * 32, "isvsvn": 1}],
        [{"mrenclave": "00"}],
        [{"mrsigner": "00" * 32, "isvprodid": 1, "isvsvn": 65536}],
    ],
)
def test_rules_of_enclaves_that_say_too_little_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(TamperingError):
        read("sgx", {"identities": rows})


def load(given: SignedPolicy, now: int = NOW) -> list[str]:
    checks = Checks(intel_checks.REFERENCES)
    found = accept(given, INTEL_TYPE, intel_reference.parse, now, checks)
    result = checks.conclude("tdx", now, frozenset({"policy.serial"}))
    assert (found is None) == bool(result.failed)
    return [check.name for check in result.failed]


def test_only_a_policy_in_force_counts() -> None:
    table = policy()
    assert [load(signed_policy(table), now) for now in (NOW - 1001, NOW - 1000, NOW + 999, NOW + 1000)] == [
        ["policy.validity"], [], [], ["policy.validity"],
    ]  # fmt: skip
    assert load(signed_policy(table, 7)) == []
    assert load(signed_policy(table, 8)) == ["policy.serial"]
    assert load(SignedPolicy(envelope=signed(table), signers=(OWNER.public,))) == ["policy.signature"], "a TPM's"
    assert load(SignedPolicy(envelope=signed(table, kind=INTEL_TYPE), signers=())) == ["policy.signature"]
    assert load(signed_policy(table | {"tcb": {}})) == ["policy.format"]
    assert Scene(policy={"version": 2}).failed() == ["policy.format"]


@pytest.mark.parametrize("name", ["debug", "migratable", "pks", "kl", "perfmon", "lass", "tpa", "sept-ve-disable"])
def test_an_attribute_that_may_be_anything_is_shown_as_waived(name: str) -> None:
    result, _ = Scene(reference={"attributes": attributes(**{name.replace("-", "_"): "any"})}).appraise()
    assert result.status == "trusted", result.reason
    assert f"tdx.attributes.{name}" in {check.name for check in result.waived}


def test_whatever_is_not_judged_is_shown_as_waived() -> None:
    loose = {"xfam": None, "mrservicetd": "unjudged", "mrowner": "unjudged"}
    rules: dict[str, Any] = {"allowed": None, "denied": []}
    result, _ = Scene(version=5, reference=loose, policy={"platforms": rules}).appraise()
    assert result.status == "trusted", result.reason
    waived = {
        "tdx.xfam.allowed", "tdx.mrservicetd", "tdx.mrowner", "tdx.mrseam", "intel.platform.allowed", "tdx.log.format",
        "tdx.log.replay",
    }  # fmt: skip
    assert {check.name for check in result.waived} == waived


@settings(deadline=None, max_examples=150)
@given(value=st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=4)))
def test_any_value_is_read_or_refused(value: Any) -> None:
    for name in ("tcb", "platforms", "td", "tee", "version"):
        if [name, value] not in (["version", 1], ["tee", "tdx"]):
            with pytest.raises(TamperingError):
                read("tdx", None, **{name: value})
    for name in ("mrtd", "attributes", "xfam"):
        try:
            read("tdx", {name: value})
        except TamperingError:
            continue
        assert name == "xfam" or value == "unjudged"
