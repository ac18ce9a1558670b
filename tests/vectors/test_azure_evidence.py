# SPDX-License-Identifier: Apache-2.0
"""Genuine evidence of Azure's confidential machines, and what a strict verifier answers (MANIFEST.json)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    hcl_appraisal,
    hcl_policy,
    hcl_report,
    intel_quote,
    snp_certificates,
    snp_policy,
    snp_report,
)
from keyquorum.evidence.hcl_appraisal import ON_SNP, ON_TDX, HclChallenge, HclEvidence, HclPolicies, SnpBase
from keyquorum.evidence.intel_reference import MEASUREMENTS
from keyquorum.evidence.intel_verify import IntelTrust
from keyquorum.evidence.reference_values import REFERENCE_TYPE
from keyquorum.evidence.result import AttestationResult, Status, parse, serialise
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.snp_certificates import AMD
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.tpm_attest import parse as parse_quote
from keyquorum.evidence.tpm_quote import QuoteEvidence
from unit.evidence import tpm_maker
from unit.evidence.intel_maker import policy, signed_policy
from unit.evidence.snp_maker import GUEST, PLATFORM, policy_table
from unit.evidence.tpm_maker import OWNER, signed, sized, u16
from vectors.test_intel_evidence import CASES, collateral

Vectors = Callable[[str], Path]
NOW = 1_780_272_000  # 2026-06-01, at which MANIFEST.json has its verdicts
THEN = 1_752_105_600  # 2025-07-10, when the collateral of the trust domain was in force
SNP, TOOLING, TDX = "azure-vtpm/trustee-az-snp", "azure-vtpm/azure-cvm-tooling", "azure-vtpm/trustee-az-tdx"
OPEN = ("INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986")  # advisories of that platform's level
# How the verdict begins, and the first failed check; "" is trusted
VERDICTS = {
    f"{SNP}/hcl-report.bin": ("crypto ok", ""),
    f"{SNP}/evidence-genoa.json": ("crypto ok", ""),
    f"{TDX}/hcl-report.bin": ("crypto ok", ""),
    f"{TOOLING}/hcl-report-snp.bin": ("refuse: report signature", "snp.certificate.chip"),
}
SETUP = {"version": 1, "name": "azure", "serial": 3, "issued": 0, "expires": 1 << 40}
SETUP |= {"secure-boot": "on", "tpm": "on", "console": "any", "machines": "any"}


@cache
def read(path: Path) -> Any:
    return json.loads(path.read_text())


def quote(table: dict[str, Any]) -> QuoteEvidence:
    """Read a quote as trustee stores it: lists of numbers or hexadecimal text, the signature without its scheme."""
    signature = u16(0x14) + u16(0x0B) + sized(_bytes(table["signature"]))
    pcrs = dict(enumerate(map(_bytes, table["pcrs"])))
    return QuoteEvidence(attest=_bytes(table["message"]), signature=signature, pcrs=pcrs)


def _bytes(value: Any) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value)


class Machine:
    """A machine of the manifest, and policies that know it."""

    now: int = NOW
    base: SnpBase | IntelTrust = SnpBase(trust=SnpTrust(anchors=AMD))

    def __init__(self, vectors: Vectors, name: str) -> None:
        path = vectors(f"attest/{name}")
        folder = path.parent
        product = "genoa" if "genoa" in name else "milan"
        chain = snp_certificates.from_pem(
            vectors(f"attest/snp/trustee/{product}_ask_ark_asvk.pem").read_bytes(), "chain"
        )
        if name.endswith(".json"):
            table = read(path)
            self.report, asked, leaf = bytes(table["report"]), table["quote"], table["vcek"].encode()
        else:
            self.report = path.read_bytes()
            stored = "azure-cvm-tooling/certs.pem" if TOOLING in name else "trustee-az-snp/vcek.pem"
            leaf = (folder.parent / stored).read_bytes()
            asked = read(vectors(f"attest/{SNP}/tpm-quote-v1.json"))
        self.certificates = (snp_certificates.from_pem(leaf, "leaf")[0], *chain[:2])
        self.quote = quote(asked)
        self.nonce = parse_quote(self.quote.attest, "quote").extra_data
        self.product = product.capitalize()

    def snp_policy(self) -> dict[str, Any]:
        report = snp_report.parse(self.report[32:1216], "report")
        tcb = snp_report.components(report.tcb, self.product, "tcb")
        return policy_table(
            **{
                "products": {self.product: tcb | {"mitigations": "any"}},
                "provisional-firmware": "any",
                "guest-svn": report.guest_svn,
                "measurement": [report.measurement.hex()],
                "host-data": [report.host_data.hex()],
                "id-key": [report.id_key_digest.hex()],
                "family-id": [report.family_id.hex()],
                "image-id": [report.image_id.hex()],
                "guest-policy": dict.fromkeys(GUEST, "any") | {"abi-major": 0, "abi-minor": 31, "debug": "forbidden"},
                "platform": dict.fromkeys(PLATFORM, "any") | {"unknown": "00" * 8},
            }
        )

    def policies(self, **setup: Any) -> HclPolicies:
        rules = {str(pcr): "unjudged" if pcr in {16, 23} else [value.hex()] for pcr, value in self.quote.pcrs.items()}
        changes = {"log": None, "firmware": None, "issued": 0, "expires": 1 << 40}
        tables = {
            hcl_policy.REFERENCE_TYPE: SETUP | setup,
            REFERENCE_TYPE: tpm_maker.policy_table(rules, **changes),
        }
        machine, tpm = (
            SignedPolicy(envelope=signed(table, OWNER, kind), signers=(OWNER.public,)) for kind, table in tables.items()
        )
        return HclPolicies(hardware=self.hardware(), machine=machine, tpm=tpm)

    def hardware(self) -> SignedPolicy:
        table = self.snp_policy() if self.report[32] in {2, 3} else policy_table()
        return SignedPolicy(envelope=signed(table, OWNER, snp_policy.REFERENCE_TYPE), signers=(OWNER.public,))

    def sent(self) -> HclEvidence:
        return HclEvidence(report=self.report, certificates=self.certificates, quote=self.quote)

    def appraise(self, challenge: HclChallenge | None = None, **setup: Any) -> AttestationResult:
        asked = challenge or HclChallenge(extra_data=self.nonce, min_nonce=len(self.nonce))
        result, remembered = hcl_appraisal.appraise(self.sent(), asked, self.base, self.policies(**setup), self.now)
        assert (remembered is not None) == (result.status == Status.TRUSTED)
        return result


class Domain(Machine):
    """Trustee's machine in a trust domain: its paravisor's quote, and the collateral that was in force."""

    now, base = THEN, IntelTrust()

    def __init__(self, vectors: Vectors, form: str = "hcl-report.bin") -> None:
        path = vectors(f"attest/{TDX}/{form}")
        if form.endswith(".json"):
            table = read(path)
            self.report, self.td_quote = (unpacked(table[name]) for name in ("hcl_report", "td_quote"))
            self.quote = quote(table["tpm_quote"])
        else:
            self.report, self.td_quote = path.read_bytes(), vectors(f"attest/{TDX}/td-quote.bin").read_bytes()
            self.quote = quote(read(vectors(f"attest/{TDX}/tpm-quote-v1.json")))
        self.collateral = collateral(vectors, CASES["azure"].collateral)
        self.nonce = parse_quote(self.quote.attest, "quote").extra_data
        self.tdx: dict[str, Any] = {"sept-ve-disable": "any"}

    def sent(self) -> HclEvidence:
        return HclEvidence(report=self.report, quote=self.quote, td_quote=self.td_quote, collateral=self.collateral)

    def hardware(self) -> SignedPolicy:
        """Take what the paravisor is, and the standing that its platform had, by name."""
        body = intel_quote.parse(self.td_quote).body
        rules = {"xfam": None} | {name: [getattr(body, name).hex()] for name in MEASUREMENTS}
        until = self.now + 1
        tcb = {"statuses": {"OutOfDate": until}, "advisories": dict.fromkeys(OPEN, until), "evaluation": 0}
        table = policy(
            "tdx", rules, issued=0, expires=until, platforms={"allowed": None, "denied": []}, tcb=tcb
        )  # fmt: skip
        table["td"]["attributes"] |= self.tdx
        return signed_policy(table)


def unpacked(value: Any) -> bytes:
    """Read bytes as trustee stores them: a list of numbers, or base64url without its padding."""
    if isinstance(value, str):
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    return bytes(value)


def machine_of(vectors: Vectors, name: str) -> Machine:
    return Domain(vectors) if name.startswith(TDX) else Machine(vectors, name)


def names(result: AttestationResult) -> list[str]:
    return [check.name for check in result.failed]


def test_every_entry_of_the_manifest_has_its_verdict_here(vectors: Vectors) -> None:
    rows = [row for row in read(vectors("attest/MANIFEST.json")) if row["kind"] == "azure-hcl"]
    assert {row["path"] for row in rows} == set(VERDICTS)
    for row in rows:
        assert row["strict_verdict"].startswith(VERDICTS[row["path"]][0])
        assert hashlib.sha256(vectors(f"attest/{row['path']}").read_bytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(vectors: Vectors, name: str) -> None:
    result = machine_of(vectors, name).appraise()
    assert names(result)[:1] == [VERDICTS[name][1]] * bool(VERDICTS[name][1]), result.reason
    assert (result.status == Status.TRUSTED) == (VERDICTS[name][1] == "")
    if result.status == Status.TRUSTED:
        technology, measurement = (ON_TDX, "tdx.mrtd") if name.startswith(TDX) else (ON_SNP, "snp.measurement")
        assert result.technology == technology
        assert {check.name for check in result.checks} >= hcl_appraisal.REQUIRED[technology]
        assert {"hcl.policy.name", "tpm.policy.name", measurement, "tpm.ak"} <= set(result.claims)
        assert parse(serialise(result)) == result


def test_the_certificate_of_another_chip(vectors: Vectors) -> None:
    """Microsoft's own sample: a good chain, of another chip; so the signature does not fit either."""
    assert names(Machine(vectors, f"{TOOLING}/hcl-report-snp.bin").appraise()) == [
        "snp.certificate.chip",
        "snp.signature.value",
    ]


@pytest.mark.parametrize("form", ["evidence-v0.json", "evidence-v1.json"])
def test_the_stored_forms_of_a_machine_in_a_trust_domain(vectors: Vectors, form: str) -> None:
    result = Domain(vectors, form).appraise()
    assert result.status == Status.TRUSTED, result.reason


def test_a_trust_domain_of_a_paravisor_needs_a_policy_of_its_own(vectors: Vectors) -> None:
    domain = Domain(vectors)
    domain.tdx = {}
    assert names(domain.appraise()) == ["tdx.attributes.sept-ve-disable"]


def test_the_quote_of_another_trust_domain_does_not_vouch_for_this_machine(vectors: Vectors) -> None:
    domain = Domain(vectors)
    domain.td_quote = vectors(f"attest/{CASES['cos-113'].path}").read_bytes()
    assert "intel.quote.report-data" in names(domain.appraise())
    domain = Domain(vectors)
    domain.report = domain.report.replace(b'"secure-boot":true', b'"secure-boot":null')
    assert names(domain.appraise()) == ["intel.quote.report-data"]


def test_a_standing_that_no_policy_takes_refuses(vectors: Vectors) -> None:
    domain = Domain(vectors)
    domain.now += 86400 * 60
    refused = set(names(domain.appraise()))
    assert {"intel.tcb-info.current", "intel.qe-identity.current"} <= refused
    domain = Domain(vectors)
    domain.base = IntelTrust(evaluation=99)
    assert names(domain.appraise()) == ["intel.tcb-info.floor", "intel.qe-identity.floor"]


def test_the_three_stored_forms_of_one_machine(vectors: Vectors) -> None:
    for version in ("v1", "v2"):
        table = read(vectors(f"attest/{SNP}/evidence-{version}.json"))
        machine = Machine(vectors, f"{SNP}/hcl-report.bin")
        machine.report = unpacked(table["hcl_report"])
        machine.certificates = (unpacked(table["vcek"]), *machine.certificates[1:])
        machine.quote = quote(table["tpm_quote"])
        machine.nonce = parse_quote(machine.quote.attest, "quote").extra_data
        result = machine.appraise()
        assert result.status == Status.TRUSTED, result.reason


def test_nine_bytes_are_no_nonce(vectors: Vectors) -> None:
    machine = Machine(vectors, f"{SNP}/hcl-report.bin")
    assert names(machine.appraise(HclChallenge(extra_data=b"challenge"))) == ["tpm.attest.nonce-size"]
    other = HclChallenge(extra_data=b"chellenge", min_nonce=9)
    assert names(machine.appraise(other)) == ["tpm.attest.nonce"]


def test_the_quote_of_another_machine(vectors: Vectors) -> None:
    machine = Machine(vectors, f"{SNP}/evidence-genoa.json")
    machine.quote = quote(read(vectors(f"attest/{SNP}/tpm-quote-v1.json")))
    machine.nonce = b"challenge"
    assert names(machine.appraise()) == ["tpm.signature.value"]


SETUPS: dict[str, tuple[dict[str, Any], str]] = {
    "console": ({"console": "off"}, "hcl.console"),
    "another machine": ({"machines": ["390CBCF5-0000-0000-0000-000000000000"]}, "hcl.machine"),
    "no machine": ({"machines": []}, "hcl.machine"),
    "format": ({"console": "on"}, "policy.format"),
    "expired": ({"expires": NOW}, "policy.validity"),
}


@pytest.mark.parametrize("case", SETUPS)
def test_the_setup_of_the_machine_is_judged(vectors: Vectors, case: str) -> None:
    setup, expected = SETUPS[case]
    assert names(Machine(vectors, f"{SNP}/hcl-report.bin").appraise(**setup)) == [expected]


def test_what_the_guest_wrote_is_compared(vectors: Vectors) -> None:
    machine = Machine(vectors, f"{SNP}/hcl-report.bin")
    asked = HclChallenge(extra_data=machine.nonce, min_nonce=9, user_data=bytes(64))
    assert names(machine.appraise(asked)) == []
    assert names(machine.appraise(replace(asked, user_data=b"\1" * 64))) == ["hcl.user-data"]
    assert names(machine.appraise(replace(asked, user_data=b""))) == ["hcl.user-data"]


def test_no_flipped_bit_of_the_report_is_believed(vectors: Vectors) -> None:
    """Outside of the hardware report, which has a test of its own: each byte by the reader and the hash."""
    machine = Machine(vectors, f"{SNP}/evidence-genoa.json")
    whole, hash_in_report = machine.report, machine.report[32 + 0x50 : 32 + 0x90]
    assert hcl_report.parse(whole, "report").report_data == hash_in_report
    for at in (*range(32), *range(1216, len(whole))):
        spoiled = whole[:at] + bytes((whole[at] ^ 1 << at % 8,)) + whole[at + 1 :]
        try:
            found = hcl_report.parse(spoiled, "report")
        except TamperingError:
            continue
        assert found.report_data != hash_in_report
        if at % 100 == 0:
            machine.report = spoiled
            assert names(machine.appraise())[:1] == ["snp.report-data"]


def test_the_attestation_key_is_the_whole_key(vectors: Vectors) -> None:
    """The quote names a key that is restricted; the paravisor only its modulus. Another template would not fit."""
    machine = Machine(vectors, f"{SNP}/hcl-report.bin")
    runtime = hcl_report.parse_runtime(hcl_report.parse(machine.report, "report").runtime)
    assert runtime.ak[4:8] == hcl_report.AK_ATTRIBUTES.to_bytes(4, "big")
    shown = {check.name: check for check in machine.appraise().checks}
    assert shown["tpm.attest.signer"].outcome == "passed"
