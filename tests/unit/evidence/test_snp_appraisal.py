# SPDX-License-Identifier: Apache-2.0
"""A verified report against reference values, one thing wrong at a time (docs/attestation-snp.md §4.3, §5)."""

from __future__ import annotations

from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import snp_checks, snp_policy
from keyquorum.evidence.result import Outcome, Status
from keyquorum.evidence.snp_report import PRODUCTS as NAMES
from keyquorum.model import strict_json
from unit.evidence.snp_maker import (
    CHIP,
    GUEST,
    MEASUREMENT,
    PLATFORM,
    PRODUCTS,
    SAFE_PLATFORM,
    SAFE_POLICY,
    TCB,
    Scene,
    policy_table,
)
from unit.evidence.tpm_maker import NOW

VLEK: dict[str, Any] = {"kind": "VLEK"}


def policy(value: int) -> dict[str, Any]:
    return {"report": {0x08: value.to_bytes(8, "little")}}


def platform(value: int) -> dict[str, Any]:
    return {"report": {0x40: value.to_bytes(8, "little")}}


REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"policy": {"report-versions": [2, 5]}}, "snp.version.allowed"),
    "a provider's key": ({**VLEK, "policy": {"vlek-providers": ["cc.example.net"]}}, "snp.signer.allowed"),
    "another provider": ({**VLEK, "policy": {"signers": ["vlek"], "vlek-providers": ["x"]}}, "snp.provider.allowed"),
    "no provider": ({**VLEK, "policy": {"signers": ["vlek"]}}, "snp.provider.allowed"),
    "old at launch": ({"report": {0x1F0: bytes.fromhex("03000000000018db")}}, "snp.tcb.launch"),
    "reported above current": ({"report": {0x38: bytes.fromhex("03ff0000000018ff")}, "policy": {"provisional-firmware": "any"}}, "snp.tcb.order"),
    "launch above current": ({"report": {0x1F0: bytes.fromhex("04000000000018dc")}}, "snp.tcb.order"),
    "microcode not committed": ({"report": {0x38: bytes.fromhex("04000000000018dc")}}, "snp.tcb.provisional"),
    "firmware not committed": ({"report": {0x1E8: b"\x1e"}}, "snp.tcb.provisional"),
    "minor not committed": ({"report": {0x1E9: b"\x38"}}, "snp.tcb.provisional"),
    "mitigation missing now": ({"product": "Turin", "report": {0x200: b"\x3e"}}, "snp.tcb.mitigations"),
    "mitigation missing at launch": ({"product": "Turin", "report": {0x1F8: b"\x1f"}}, "snp.tcb.mitigations"),
    "no vectors": ({"policy": {"products": {"Milan": PRODUCTS["Milan"] | {"mitigations": "00" * 7 + "01"}}}}, "snp.tcb.mitigations"),
    "bit 17": (policy(SAFE_POLICY & ~(1 << 17)), "snp.policy.reserved"),
    "bit 26": (policy(SAFE_POLICY | 1 << 26), "snp.policy.reserved"),
    "bit 63": (policy(SAFE_POLICY | 1 << 63), "snp.policy.reserved"),
    "old ABI": ({"policy": {"guest-policy": GUEST | {"abi-major": 1, "abi-minor": 50}}}, "snp.policy.abi"),
    "old major ABI": ({"policy": {"guest-policy": GUEST | {"abi-major": 2, "abi-minor": 0}}}, "snp.policy.abi"),
    "threads": (policy(SAFE_POLICY | 1 << 16), "snp.policy.smt"),
    "migration": (policy(SAFE_POLICY | 1 << 18), "snp.policy.migration"),
    "debug": (policy(SAFE_POLICY | 1 << 19), "snp.policy.debug"),
    "several sockets": (policy(SAFE_POLICY & ~(1 << 20)), "snp.policy.single-socket"),
    "CXL": (policy(SAFE_POLICY | 1 << 21), "snp.policy.cxl"),
    "AES-128": (policy(SAFE_POLICY & ~(1 << 22)), "snp.policy.aes-256-xts"),
    "RAPL allowed": (policy(SAFE_POLICY & ~(1 << 23)), "snp.policy.rapl-off"),
    "ciphertext may show": (policy(SAFE_POLICY & ~(1 << 24)), "snp.policy.ciphertext-hiding"),
    "pages may swap": (policy(SAFE_POLICY & ~(1 << 25)), "snp.policy.page-swap-off"),
    "threads on": (platform(SAFE_PLATFORM | 1), "snp.platform.smt"),
    "no ECC": (platform(SAFE_PLATFORM & ~4), "snp.platform.ecc"),
    "RAPL": (platform(SAFE_PLATFORM & ~8), "snp.platform.rapl-off"),
    "ciphertext shows": (platform(SAFE_PLATFORM & ~16), "snp.platform.ciphertext-hiding"),
    "memory aliases": (platform(SAFE_PLATFORM & ~32), "snp.platform.alias-check"),
    "bit 6": (platform(SAFE_PLATFORM | 64), "snp.platform.unknown"),
    "bit 40": ({**platform(SAFE_PLATFORM | 1 << 40 | 64), "policy": {"platform": PLATFORM | {"unknown": "00" * 7 + "40"}}}, "snp.platform.unknown"),
    "VMPL 1": ({"report": {0x30: b"\1"}}, "snp.vmpl"),
    "VMPL 256": ({"report": {0x31: b"\1"}}, "snp.vmpl"),
    "another guest": ({"report": {0x90: b"?"}}, "snp.measurement"),
    "other host data": ({"report": {0xC0: b"?"}}, "snp.host-data"),
    "old guest": ({"report": {0x04: b"\1"}}, "snp.guest-svn"),
    "other family": ({"report": {0x10: b"?"}}, "snp.family-id"),
    "other image": ({"report": {0x20: b"?"}}, "snp.image-id"),
    "other ID key": ({"report": {0xE0: b"?"}}, "snp.id-key"),
    "other author": ({"report": {0x48: b"\1", 0x110: b"?"}}, "snp.author-key"),
    "author of nothing": ({"report": {0x48: b"\1"}}, "snp.author-key"),
    "author not in use": ({"report": {0x110: b"?"}, "policy": {"author-key": ["3f" + "00" * 47]}}, "snp.author-key"),
    "not listed": ({"policy": {"chips": {"listed": ["00" * 64], "denied": []}}}, "snp.chip.listed"),
    "no list": ({"policy": {"chips": {"listed": [], "denied": []}}}, "snp.chip.listed"),
    "denied": ({"policy": {"chips": {"listed": "any", "denied": [CHIP.hex()]}}}, "snp.chip.denied"),
    "hidden chip": (
        {**VLEK, "policy": {"signers": ["vlek"], "vlek-providers": "any", "chips": {"listed": ["00" * 64], "denied": []}}},
        "snp.chip.listed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REPORTS)
def test_a_report_that_is_not_as_it_should_be_is_named(case: str) -> None:
    changes, expected = REPORTS[case]
    assert Scene(**changes).failed() == [expected]


def test_a_product_that_the_policy_does_not_have() -> None:
    """Then there is no TCB version to compare with either."""
    result = Scene(product="Genoa", policy={"products": {"Milan": PRODUCTS["Milan"]}}).appraise()
    assert [check.name for check in result.failed] == ["snp.product.allowed"]
    assert snp_checks.REPORT - {check.name for check in result.checks} == {
        "snp.tcb.minimum", "snp.tcb.launch", "snp.tcb.mitigations",
    }  # fmt: skip


MINIMA = {
    "boot loader": {"bootloader": 5},
    "TEE": {"tee": 1},
    "SNP": {"snp": 25},
    "microcode": {"microcode": 220},
}


@pytest.mark.parametrize("case", MINIMA)
def test_every_component_has_a_lowest_level(case: str) -> None:
    table = {"products": {"Milan": PRODUCTS["Milan"] | MINIMA[case]}}
    assert Scene(policy=table).failed() == ["snp.tcb.minimum", "snp.tcb.launch"]


def test_components_are_not_one_number() -> None:
    """A high microcode is the number's highest byte, and yet makes up for nothing."""
    tcb = bytes.fromhex("03000000000018ff")
    report = dict.fromkeys((56, 384, 480, 496), tcb)
    extensions = {"3.1": b"\2\1\3", "3.8": b"\2\2\0\xff"}
    assert int.from_bytes(tcb, "little") > int.from_bytes(bytes.fromhex(TCB["Milan"]), "little")
    assert Scene(report=report, extensions=extensions).failed() == ["snp.tcb.minimum", "snp.tcb.launch"]


LOOSENED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "snp.policy.debug": ({"guest-policy": GUEST | {"debug": "any"}}, policy(SAFE_POLICY | 1 << 19)),
    "snp.policy.migration": ({"guest-policy": GUEST | {"migration": "any"}}, policy(SAFE_POLICY | 1 << 18)),
    "snp.policy.smt": ({"guest-policy": GUEST | {"smt": "any"}}, policy(SAFE_POLICY | 1 << 16)),
    "snp.platform.alias-check": ({"platform": PLATFORM | {"alias-check": "any"}}, platform(SAFE_PLATFORM & ~32)),
    "snp.platform.smt": ({"platform": PLATFORM | {"smt": "any"}}, platform(SAFE_PLATFORM | 1)),
    "snp.tcb.provisional": ({"provisional-firmware": "any"}, {"report": {0x38: bytes.fromhex("04000000000018dc")}}),
    "snp.host-data": ({"host-data": "any"}, {"report": {0xC0: b"?"}}),
    "snp.measurement": ({"measurement": "any", "id-key": ["3f" + "00" * 47]}, {"report": {0x90: b"?", 0xE0: b"?"}}),
    "snp.provider.allowed": ({"signers": ["vlek"], "vlek-providers": "any"}, VLEK),
}


@pytest.mark.parametrize("name", LOOSENED)
def test_what_is_loosened_shows(name: str) -> None:
    changes, scene = LOOSENED[name]
    strict = Scene(**scene).appraise()
    assert strict.status == Status.UNTRUSTED
    loose = Scene(policy=changes, **scene).appraise()
    assert loose.status == Status.TRUSTED, loose.reason
    outcomes = {check.name: check.outcome for check in loose.checks}
    assert outcomes[name] == Outcome.WAIVED


def test_unknown_bits_of_the_platform_may_be_taken_one_by_one() -> None:
    table = {"platform": PLATFORM | {"unknown": "0000000000000040"}}
    assert Scene(**platform(SAFE_PLATFORM | 64), policy=table).failed() == []
    assert Scene(**platform(SAFE_PLATFORM | 128), policy=table).failed() == ["snp.platform.unknown"]


def test_a_listed_chip_is_taken_and_a_bad_one_is_not_though_listed() -> None:
    listed: dict[str, Any] = {"listed": [CHIP.hex()], "denied": []}
    assert Scene(policy={"chips": listed}).failed() == []
    assert Scene(policy={"chips": listed | {"denied": [CHIP.hex()]}}).failed() == ["snp.chip.denied"]


@pytest.mark.parametrize(("serial", "now"), [(1, 1 << 41), (1, -1)])
def test_a_policy_that_does_not_count_denies(serial: int, now: int) -> None:
    scene = Scene(now=NOW, policy={"issued": NOW + 1} if now < 0 else {"expires": NOW})
    assert scene.failed() == ["policy.validity"]
    assert serial == 1


WRONG: dict[str, dict[str, Any]] = {
    "a version": {"version": 2},
    "a new field": {"more": 1},
    "no report version": {"report-versions": []},
    "unknown report version": {"report-versions": [4]},
    "truth for a number": {"vmpl": [False]},
    "no signer": {"signers": []},
    "unknown signer": {"signers": ["vtek"]},
    "a signer in a list": {"signers": [["vcek"]]},
    "providers as a text": {"vlek-providers": "cc.example.net"},
    "no product": {"products": {}},
    "unknown product": {"products": {"Naples": PRODUCTS["Milan"]}},
    "no component": {"products": {"Milan": {"bootloader": 4, "tee": 0, "snp": 24, "mitigations": "any"}}},
    "fmc of Milan": {"products": {"Milan": PRODUCTS["Milan"] | {"fmc": 1}}},
    "level 256": {"products": {"Milan": PRODUCTS["Milan"] | {"snp": 256}}},
    "short mask": {"products": {"Milan": PRODUCTS["Milan"] | {"mitigations": "3f"}}},
    "provisional": {"provisional-firmware": "allowed"},
    "VMPL 4": {"vmpl": [4]},
    "short digest": {"measurement": ["00" * 47]},
    "capitals": {"measurement": ["AB" * 48]},
    "null": {"host-data": None},
    "everybody": {"measurement": "any", "id-key": "any"},
    "debug allowed": {"guest-policy": GUEST | {"debug": "allowed"}},
    "debug forgotten": {"guest-policy": {name: word for name, word in GUEST.items() if name != "debug"}},
    "unknown bit": {"guest-policy": GUEST | {"more": "any"}},
    "platform forgotten": {"platform": {}},
    "unknown platform bit": {"platform": PLATFORM | {"tio": "on"}},
    "chips forgotten": {"chips": {"listed": "any"}},
    "denied is any": {"chips": {"listed": "any", "denied": "any"}},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_that_is_not_understood_denies(case: str) -> None:
    with pytest.raises(TamperingError):
        snp_policy.parse(strict_json.serialise(policy_table(**WRONG[case])))
    assert Scene(policy=WRONG[case]).failed() == ["policy.format"]


@pytest.mark.parametrize("field", policy_table())
def test_no_field_of_a_policy_has_a_default(field: str) -> None:
    table = policy_table()
    del table[field]
    with pytest.raises(TamperingError):
        snp_policy.parse(strict_json.serialise(table))


def test_a_whole_policy_is_read() -> None:
    found = snp_policy.parse(strict_json.serialise(policy_table()))
    assert set(found.products) == set(NAMES)
    assert found.values["measurement"] == frozenset({MEASUREMENT})
    assert {f"snp.policy.{name}" for name in snp_policy.GUEST_BITS} < found.demanded
    assert {f"snp.platform.{name}" for name in snp_policy.PLATFORM_BITS} < found.demanded
