# SPDX-License-Identifier: Apache-2.0
"""Reference values: a policy that is not signed, not understood, or judges nothing is a denial (§8 of the page)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.envelope.signing import Owner
from keyquorum.errors import TamperingError
from keyquorum.evidence import reference_values, tpm_checks
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.reference_values import LogRules
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.model import strict_json
from unit.evidence.tpm_maker import NOW, OWNER, policy_table, signed

VALUE = "ab" * 32
TABLE = policy_table({"0": [VALUE, "00" * 32], "4": {"events": [VALUE]}, "7": "log", "9": "unjudged", "16": "unjudged"})
STRANGER = Owner(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def payload(**changes: Any) -> bytes:
    return strict_json.serialise(TABLE | changes)


def test_a_policy_is_read() -> None:
    found = reference_values.parse(payload())
    assert (found.name, found.serial, found.bank, found.safe_clock) == ("servers", 7, "sha256", True)
    assert found.selection == (0, 4, 7, 9, 16)
    assert found.pcrs[0].values == {bytes.fromhex(VALUE), bytes(32)}
    assert found.pcrs[4].events == {bytes.fromhex(VALUE)}
    assert found.pcrs[7].log
    assert {pcr for pcr, rule in found.pcrs.items() if not rule.judged} == {9, 16}
    assert found.log == LogRules(secure_boot=True, exit_boot_services=True)
    assert found.firmware == 0x0001000000000000


def test_what_is_loosened_must_be_written() -> None:
    found = reference_values.parse(
        payload(log=None, firmware=None, clock="any", pcrs={"0": [VALUE]}),
    )
    assert (found.log, found.firmware, found.safe_clock) == (None, None, False)
    loose = reference_values.parse(payload(log={"secure_boot": "any", "exit_boot_services": "any"}))
    assert loose.log == LogRules(secure_boot=False, exit_boot_services=False)
    for name in TABLE:
        with pytest.raises(TamperingError):
            reference_values.parse(strict_json.serialise({key: TABLE[key] for key in TABLE if key != name}))


REFUSED: dict[str, dict[str, Any]] = {
    "no pcr": {"pcrs": {}},
    "judges nothing": {"pcrs": {"7": "unjudged"}},
    "pcr 16": {"pcrs": {"16": [VALUE]}},
    "pcr 23": {"pcrs": {"0": [VALUE], "23": "log"}},
    "pcr 24": {"pcrs": {"24": [VALUE]}},
    "pcr 07": {"pcrs": {"07": [VALUE]}},
    "pcr -1": {"pcrs": {"-1": [VALUE]}},
    "pcr of another script": {"pcrs": {"\u0667": [VALUE]}},
    "pcr of no end": {"pcrs": {"1" * 5000: [VALUE]}},
    "no value": {"pcrs": {"0": [], "7": [VALUE]}},
    "short value": {"pcrs": {"0": ["ab" * 31]}},
    "value of another bank": {"bank": "sha384"},
    "no event": {"pcrs": {"0": {"events": []}, "7": [VALUE]}},
    "event and more": {"pcrs": {"0": {"events": [VALUE], "values": [VALUE]}}},
    "any": {"pcrs": {"0": "any"}},
    "null": {"pcrs": {"0": None}},
    "sha1": {"bank": "sha1"},
    "log by no log": {"log": None, "pcrs": {"0": [VALUE], "7": "log"}},
    "events by no log": {"log": None, "pcrs": {"0": [VALUE], "7": {"events": [VALUE]}}},
    "log by halves": {"log": {"secure_boot": "on"}},
    "log off": {"log": {"secure_boot": "off", "exit_boot_services": "any"}},
    "firmware as number": {"firmware": 1},
    "clock": {"clock": "maybe"},
    "serial": {"serial": 0},
    "version": {"version": True},
    "name": {"name": "a b"},
    "unknown": {"accept_all": True},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case: str) -> None:
    with pytest.raises(TamperingError):
        reference_values.parse(payload(**REFUSED[case]))


def load(envelope: bytes, now: int = NOW, lowest_serial: int = 1) -> list[str]:
    checks = Checks(tpm_checks.REFERENCES)
    policy = SignedPolicy(envelope=envelope, signers=(OWNER.public,), lowest_serial=lowest_serial)
    found = reference_values.load(policy, now, checks)
    result = checks.conclude("tpm", now, frozenset({"policy.serial"}))
    assert (found is None) == bool(result.failed)
    return [check.name for check in result.failed]


def test_a_signed_policy_counts_from_its_issue_to_before_its_end() -> None:
    envelope = signed(TABLE)
    assert [load(envelope, now) for now in (NOW - 1001, NOW - 1000, NOW + 999, NOW + 1000)] == [
        ["policy.validity"], [], [], ["policy.validity"],
    ]  # fmt: skip
    assert load(envelope, lowest_serial=7) == []
    assert load(envelope, lowest_serial=8) == ["policy.serial"]


def test_whose_signature_counts() -> None:
    assert load(signed(TABLE, STRANGER)) == ["policy.signature"]
    assert load(signed(TABLE, kind="application/vnd.keyquorum.set.v1+json")) == ["policy.signature"]
    assert load(b"") == load(b"{}") == load(b"x" * 100_000) == ["policy.signature"]
    table = json.loads(signed(TABLE))
    table["payload"] = strict_json.to_base64(payload(serial=8))
    assert load(strict_json.serialise(table)) == ["policy.signature"]
    unknown = SignedPolicy(envelope=signed(TABLE), signers=())
    assert reference_values.load(unknown, NOW, Checks(tpm_checks.REFERENCES)) is None


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, 5000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_signed_policy_counts_otherwise(at: int, bit: int) -> None:
    envelope = bytearray(signed(TABLE))
    envelope[at % len(envelope)] ^= 1 << bit
    assert load(bytes(envelope)) == ["policy.signature"]


@settings(deadline=None)
@given(
    pcrs=st.dictionaries(
        st.text("0123456789", max_size=3),
        st.none() | st.integers() | st.text(max_size=4) | st.lists(st.just(VALUE) | st.text(max_size=4), max_size=3),
        max_size=4,
    )
)
def test_any_table_of_pcrs_is_read_or_refused(pcrs: dict[str, Any]) -> None:
    try:
        found = reference_values.parse(strict_json.serialise(TABLE | {"pcrs": pcrs}))
    except TamperingError:
        return
    assert any(rule.judged for rule in found.pcrs.values())
    assert set(map(str, found.pcrs)) == set(pcrs)
