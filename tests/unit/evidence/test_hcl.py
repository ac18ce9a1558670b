# SPDX-License-Identifier: Apache-2.0
"""Azure's report and what hangs on it, under test roots, one thing wrong at a time (docs/attestation-azure.md)."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    hcl_appraisal,
    hcl_policy,
    hcl_report,
    intel_checks,
    snp_checks,
    snp_policy,
    tpm_checks,
)
from keyquorum.evidence.hcl_appraisal import ON_SNP, ON_TDX, HclChallenge, HclEvidence, HclPolicies, SnpBase
from keyquorum.evidence.intel_verify import IntelTrust
from keyquorum.evidence.reference_values import REFERENCE_TYPE
from keyquorum.evidence.result import AttestationResult, Outcome, Status, parse, serialise
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.tpm_quote import QuoteEvidence
from keyquorum.evidence.tpm_wire import RSASSA
from keyquorum.model import strict_json
from unit.evidence import intel_maker, snp_maker, tpm_maker
from unit.evidence.tpm_maker import BOOT, NONCE, NOW, OWNER, Attest, Key, private, selection, signed, values_of

AK = Key(kind="rsa2048", number=50, attributes=hcl_report.AK_ATTRIBUTES, scheme=RSASSA)
MACHINE = "911B0EF8-9DBA-48B0-B275-4E4DF2D39252"
USER = bytes(range(64))


def jwk(number: int = 50, **changes: Any) -> dict[str, Any]:
    key = private("rsa2048", number)
    assert isinstance(key, rsa.RSAPrivateKey)
    modulus = key.public_key().public_numbers().n.to_bytes(256, "big")
    text = base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()
    return {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": text} | changes


SETUP = {"console-enabled": False, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": MACHINE, "new": [1]}
RUNTIME: dict[str, Any] = {
    "keys": [jwk(), {"kid": "HCLEkPub", "key_ops": ["encrypt"], "kty": "RSA", "e": "AQAB", "n": "AA"}],
    "vm-configuration": SETUP,
    "user-data": USER.hex(),
}
TABLE: dict[str, Any] = {
    "version": 1, "name": "azure", "serial": 3, "issued": 0, "expires": 1 << 40,
    "secure-boot": "on", "tpm": "on", "console": "off", "machines": [MACHINE],
}  # fmt: skip


@dataclass(kw_only=True)
class Scene:
    """A machine as its policies want it."""

    runtime: dict[str, Any] = field(default_factory=dict)
    report: dict[int, bytes] = field(default_factory=dict)  # of the hardware, by offset
    header: dict[int, int] = field(default_factory=dict)  # words by their number: 1 to 7 header, 8 to 12 data
    setup: dict[str, Any] = field(default_factory=dict)
    tpm: dict[str, Any] = field(default_factory=dict)
    challenge: dict[str, Any] = field(default_factory=dict)
    fill: bytes = bytes(100)
    raw: bytes | None = None
    ak: Key = AK
    bind: bool = True

    def text(self) -> bytes:
        return self.raw if self.raw is not None else json.dumps(RUNTIME | self.runtime).encode()

    def guest(self) -> snp_maker.Scene:
        bound = hcl_report.HclReport(kind=2, hardware=b"", runtime=self.text()).report_data
        report = ({0x50: bound} if self.bind else {}) | self.report
        return snp_maker.Scene(report=report)

    def whole(self, hardware: bytes) -> bytes:
        text = self.text()
        words = [2, 32 + 1184 + 20 + len(text), 2, 0, 0, 0, 0, 20 + len(text), 1, 2, 1, len(text)]
        for number, value in self.header.items():
            words[number - 1] = value
        return b"HCLA" + struct.pack("<7I", *words[:7]) + hardware + struct.pack("<5I", *words[7:]) + text + self.fill

    def quote(self) -> QuoteEvidence:
        values = values_of(BOOT)
        digest = hashlib.sha256(b"".join(values.values())).digest()
        attest = Attest(
            signer=self.ak.enrolled.qualified_name, digest=digest, selections=(selection("sha256", *values),)
        ).data
        return QuoteEvidence(attest=attest, signature=self.ak.sign(attest), pcrs=values, log=tpm_maker.log(BOOT))

    def policies(self, hardware: SignedPolicy) -> HclPolicies:
        pcrs = {str(pcr): [value.hex()] for pcr, value in values_of(BOOT).items()}
        tables = (
            (hcl_policy.REFERENCE_TYPE, TABLE | self.setup),
            (REFERENCE_TYPE, tpm_maker.policy_table(**({"pcrs": pcrs} | self.tpm))),
        )
        machine, tpm = (
            SignedPolicy(envelope=signed(table, OWNER, kind), signers=(OWNER.public,)) for kind, table in tables
        )
        return HclPolicies(hardware=hardware, machine=machine, tpm=tpm)

    def evidence(self) -> tuple[HclEvidence, SnpBase | IntelTrust, SignedPolicy]:
        guest = self.guest()
        chain = guest.certificates()
        policy = signed(snp_maker.policy_table(), OWNER, snp_policy.REFERENCE_TYPE)
        return (
            HclEvidence(report=self.whole(guest.signed_report()), certificates=chain, quote=self.quote()),
            SnpBase(trust=SnpTrust(anchors=guest.anchors(chain))),
            SignedPolicy(envelope=policy, signers=(OWNER.public,)),
        )

    def appraise(self) -> AttestationResult:
        evidence, base, hardware = self.evidence()
        asked: dict[str, Any] = {"extra_data": NONCE, "user_data": USER}
        challenge = HclChallenge(**(asked | self.challenge))
        result, remembered = hcl_appraisal.appraise(evidence, challenge, base, self.policies(hardware), NOW)
        assert (remembered is not None) == (result.status == Status.TRUSTED)
        assert remembered is None or remembered.evaluation == (0 if isinstance(base, SnpBase) else 18)
        return result

    def failed(self) -> list[str]:
        result = self.appraise()
        assert bool(result.failed) == (result.status == Status.UNTRUSTED), result.reason
        assert not result.failed or result.claims == {}
        return [check.name for check in result.failed]


@dataclass(kw_only=True)
class DomainScene(Scene):
    """The same machine in a trust domain of TDX: `domain` changes its quote's body, `given` what is sent."""

    domain: dict[str, bytes] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)

    def evidence(self) -> tuple[HclEvidence, SnpBase | IntelTrust, SignedPolicy]:
        self.header = {10: 4} | self.header
        bound = hcl_report.HclReport(kind=4, hardware=b"", runtime=self.text()).report_data
        domain = intel_maker.Scene(body=({"report_data": bound} if self.bind else {}) | self.domain)
        sent: dict[str, Any] = {"td_quote": domain.quote(), "collateral": domain.collected()}
        return (
            HclEvidence(report=self.whole(bytes(1184)), quote=self.quote(), **(sent | self.given)),
            IntelTrust(roots=intel_maker.PINNED),
            intel_maker.signed_policy(self.table or intel_maker.policy()),
        )


@pytest.mark.parametrize(
    ("kind", "technology", "policies"),
    [(Scene, ON_SNP, {"snp": "strict"}), (DomainScene, ON_TDX, {"tdx": "enclaves"})],
)
def test_a_machine_as_it_should_be_is_trusted(kind: type[Scene], technology: str, policies: dict[str, str]) -> None:
    result = kind().appraise()
    assert (result.technology, result.status, result.reason) == (technology, Status.TRUSTED, "")
    assert {check.name for check in result.checks} == hcl_appraisal.REQUIRED[technology]
    assert result.claims["hcl.machine"] == MACHINE
    for part, name in (policies | {"hcl": "azure", "tpm": "servers"}).items():
        assert result.claims[f"{part}.policy.name"] == name
    assert result.claims["tpm.secure-boot"] == "on"
    assert parse(serialise(result)) == result
    assert kind(fill=b"").failed() == []


REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "header version": ({"header": {1: 3}}, "hcl.report.format"),
    "whole size": ({"header": {2: 2000}}, "hcl.report.format"),
    "request": ({"header": {3: 1}}, "hcl.report.format"),
    "status": ({"header": {4: 1}}, "hcl.report.format"),
    "reserved": ({"header": {7: 1}}, "hcl.report.format"),
    "part size": ({"header": {8: 20}}, "hcl.report.format"),
    "data version": ({"header": {9: 2}}, "hcl.report.format"),
    "unknown kind": ({"header": {10: 3}}, "hcl.report.format"),
    "SHA-384": ({"header": {11: 2}}, "hcl.report.format"),
    "endless JSON": ({"header": {12: 0xFFFFFFFF}}, "hcl.report.format"),
    "fill": ({"fill": b"\0\1"}, "hcl.report.format"),
    "too long": ({"fill": bytes(3000)}, "hcl.report.format"),
    "TDX": ({"header": {10: 4}}, "hcl.report.kind"),
    "another JSON": ({"bind": False}, "snp.report-data"),
    "paravisor in debug": ({"report": {0x08: (snp_maker.SAFE_POLICY | 1 << 19).to_bytes(8, "little")}}, "snp.policy.debug"),
    "not JSON": ({"raw": b"{"}, "hcl.runtime.format"),
    "name twice": ({"raw": b'{"keys":[],"keys":[]}'}, "hcl.runtime.format"),
    "no keys": ({"runtime": {"keys": []}}, "hcl.runtime.format"),
    "two keys": ({"runtime": {"keys": [jwk(), jwk(51)]}}, "hcl.runtime.format"),
    "a key to encrypt": ({"runtime": {"keys": [jwk(key_ops=["encrypt"])]}}, "hcl.runtime.format"),
    "a key for both": ({"runtime": {"keys": [jwk(key_ops=["sign", "encrypt"])]}}, "hcl.runtime.format"),
    "an ECC key": ({"runtime": {"keys": [jwk(kty="EC")]}}, "hcl.runtime.format"),
    "exponent 3": ({"runtime": {"keys": [jwk(e="Aw")]}}, "hcl.runtime.format"),
    "short modulus": ({"runtime": {"keys": [jwk(n="AQAB")]}}, "hcl.runtime.format"),
    "padded modulus": ({"runtime": {"keys": [jwk(n=str(jwk()["n"]) + "==")]}}, "hcl.runtime.format"),
    "no setup": ({"runtime": {"vm-configuration": None}}, "hcl.runtime.format"),
    "setup in words": ({"runtime": {"vm-configuration": SETUP | {"secure-boot": "on"}}}, "hcl.runtime.format"),
    "short user data": ({"runtime": {"user-data": "00"}}, "hcl.runtime.format"),
    "another key": ({"runtime": {"keys": [jwk(51)]}}, "tpm.signature.value"),
    "another template": ({"ak": Key(kind="rsa2048", number=50, attributes=0x40072, scheme=RSASSA)}, "tpm.attest.signer"),
    "Secure Boot off": ({"runtime": {"vm-configuration": SETUP | {"secure-boot": False}}}, "hcl.secure-boot"),
    "Secure Boot not said": ({"runtime": {"vm-configuration": {"tpm-enabled": True, "console-enabled": False, "vmUniqueId": MACHINE}}}, "hcl.secure-boot"),
    "no TPM": ({"runtime": {"vm-configuration": SETUP | {"tpm-enabled": False}}}, "hcl.tpm"),
    "console": ({"runtime": {"vm-configuration": SETUP | {"console-enabled": True}}}, "hcl.console"),
    "another machine": ({"setup": {"machines": ["390CBCF5"]}}, "hcl.machine"),
    "other user data": ({"challenge": {"user_data": bytes(64)}}, "hcl.user-data"),
    "no user data": ({"runtime": {"user-data": None}}, "hcl.user-data"),
    "nothing asked": (
        {"challenge": {"user_data": b""}, "runtime": {"user-data": None}}, "hcl.user-data"
    ),
    "another nonce": ({"challenge": {"extra_data": bytes(32)}}, "tpm.attest.nonce"),
    "other values": ({"tpm": {"pcrs": {str(pcr): ["00" * 32] for pcr in range(8)}}}, "tpm.pcr.values"),
    "policy of machines": ({"setup": {"console": "on"}}, "policy.format"),
    "more in the policy": ({"setup": {"more": "any"}}, "policy.format"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPORTS)
def test_what_is_wrong_is_named(case: str) -> None:
    changes, expected = REPORTS[case]
    assert Scene(**changes).failed() == [expected]


DOMAINS: dict[str, tuple[dict[str, Any], str]] = {
    "SNP": ({"header": {10: 2}}, "hcl.report.kind"),
    "another JSON below TDX": ({"bind": False}, "intel.quote.report-data"),
    "no quote": ({"given": {"td_quote": b""}}, "intel.quote.structure"),
    "no collateral": ({"given": {"collateral": None}}, "intel.tcb-info.signature"),
    "a policy of enclaves": ({"table": intel_maker.policy("sgx")}, "policy.tee"),
    "a policy of chips": ({"table": snp_maker.policy_table()}, "policy.format"),
    "paravisor in debug below TDX": ({"domain": {"attributes": (1 << 28 | 1).to_bytes(8, "little")}}, "tdx.attributes.debug"),
    "console below TDX": ({"runtime": {"vm-configuration": SETUP | {"console-enabled": True}}}, "hcl.console"),
    "another key below TDX": ({"runtime": {"keys": [jwk(51)]}}, "tpm.signature.value"),
    "another nonce below TDX": ({"challenge": {"extra_data": bytes(32)}}, "tpm.attest.nonce"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOMAINS)
def test_what_is_wrong_below_tdx_is_named(case: str) -> None:
    changes, expected = DOMAINS[case]
    assert DomainScene(**changes).failed()[0] == expected


@pytest.mark.parametrize("kind", [Scene, DomainScene])
def test_nothing_is_read_of_what_the_chip_does_not_vouch_for(kind: type[Scene]) -> None:
    names = [check.name for check in kind(bind=False).appraise().checks]
    assert not [name for name in names if name.startswith(("hcl.runtime", "hcl.machine", "tpm."))]


def test_evidence_does_not_choose_by_whom_it_is_judged() -> None:
    """A trust domain where a machine on SEV-SNP was asked for: its own quote, however good, is not looked at."""
    domain = DomainScene()
    evidence, _, _ = domain.evidence()
    _, base, hardware = Scene().evidence()
    asked = HclChallenge(extra_data=NONCE, user_data=USER)
    result, remembered = hcl_appraisal.appraise(evidence, asked, base, domain.policies(hardware), NOW)
    assert ([check.name for check in result.checks], remembered) == (["hcl.report.format", "hcl.report.kind"], None)
    assert (result.technology, result.status) == (ON_SNP, Status.UNTRUSTED)


def test_what_is_loosened_shows() -> None:
    off = SETUP | {"secure-boot": False, "tpm-enabled": False, "console-enabled": True}
    loose = {"secure-boot": "any", "tpm": "any", "console": "any", "machines": "any"}
    result = Scene(runtime={"vm-configuration": off}, setup=loose, challenge={"user_data": None}).appraise()
    assert result.status == Status.TRUSTED, result.reason
    waived = {check.name for check in result.checks if check.outcome == Outcome.WAIVED}
    assert {"hcl.secure-boot", "hcl.tpm", "hcl.console", "hcl.machine", "hcl.user-data"} <= waived


def test_no_field_of_a_policy_has_a_default() -> None:
    for name in TABLE:
        with pytest.raises(TamperingError):
            hcl_policy.parse(strict_json.serialise({key: value for key, value in TABLE.items() if key != name}))


def test_names_do_not_meet() -> None:
    parts = (snp_checks.REFERENCES, intel_checks.REFERENCES, tpm_checks.REFERENCES)
    assert not set(hcl_appraisal.OWN) & {name for part in parts for name in part}


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 1400), st.binary(min_size=1, max_size=24))
def test_a_report_is_read_or_refused(offset: int, value: bytes) -> None:
    whole = Scene(raw=b'{"keys":[]}').whole(bytes(1184))
    data = (whole[:offset] + value + whole[offset + len(value) :])[: len(whole)]
    try:
        found = hcl_report.parse(data, "report")
    except TamperingError:
        return
    assert found.hardware == data[32:1216]
    assert found.runtime in data


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='{}[]":,HCLAkPub0n', max_size=80).map(str.encode)))
def test_any_text_is_read_or_refused(data: bytes) -> None:
    with pytest.raises(TamperingError):
        hcl_report.parse_runtime(data)
