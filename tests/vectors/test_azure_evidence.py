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
from keyquorum.evidence import hcl_appraisal, hcl_policy, hcl_report, snp_certificates, snp_policy, snp_report
from keyquorum.evidence.hcl_appraisal import HclChallenge, HclEvidence, HclPolicies
from keyquorum.evidence.reference_values import REFERENCE_TYPE, SignedPolicy
from keyquorum.evidence.result import AttestationResult, Status, parse, serialise
from keyquorum.evidence.snp_certificates import AMD
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.tpm_attest import parse as parse_quote
from keyquorum.evidence.tpm_quote import QuoteEvidence
from unit.evidence import tpm_maker
from unit.evidence.snp_maker import GUEST, PLATFORM, policy_table
from unit.evidence.tpm_maker import OWNER, signed, sized, u16

Vectors = Callable[[str], Path]
NOW = 1_780_272_000  # 2026-06-01, at which MANIFEST.json has its verdicts
SNP, TOOLING, TDX = "azure-vtpm/trustee-az-snp", "azure-vtpm/azure-cvm-tooling", "azure-vtpm/trustee-az-tdx"
# How the verdict begins, and the first failed check; "" is trusted
VERDICTS = {
    f"{SNP}/hcl-report.bin": ("crypto ok", ""),
    f"{SNP}/evidence-genoa.json": ("crypto ok", ""),
    f"{TDX}/hcl-report.bin": ("crypto ok", "hcl.report.kind"),  # evidence of TDX is not read here
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
            snp_policy.REFERENCE_TYPE: self.snp_policy() if self.report[32] in {2, 3} else policy_table(),
            hcl_policy.REFERENCE_TYPE: SETUP | setup,
            REFERENCE_TYPE: tpm_maker.policy_table(rules, **changes),
        }
        snp, machine, tpm = (
            SignedPolicy(envelope=signed(table, OWNER, kind), signers=(OWNER.public,)) for kind, table in tables.items()
        )
        return HclPolicies(snp=snp, machine=machine, tpm=tpm)

    def appraise(self, challenge: HclChallenge | None = None, **setup: Any) -> AttestationResult:
        evidence = HclEvidence(report=self.report, certificates=self.certificates, quote=self.quote)
        asked = challenge or HclChallenge(extra_data=self.nonce, min_nonce=len(self.nonce))
        result, clock = hcl_appraisal.appraise(evidence, asked, SnpTrust(anchors=AMD), self.policies(**setup), NOW)
        assert (clock is not None) == (result.status == Status.TRUSTED)
        return result


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
    result = Machine(vectors, name).appraise()
    assert names(result)[:1] == [VERDICTS[name][1]] * bool(VERDICTS[name][1]), result.reason
    assert (result.status == Status.TRUSTED) == (VERDICTS[name][1] == "")
    if result.status == Status.TRUSTED:
        assert {check.name for check in result.checks} >= hcl_appraisal.REQUIRED
        assert {"snp.policy.name", "hcl.policy.name", "tpm.policy.name", "snp.measurement", "tpm.ak"} <= set(
            result.claims
        )
        assert parse(serialise(result)) == result


def test_the_certificate_of_another_chip(vectors: Vectors) -> None:
    """Microsoft's own sample: a good chain, of another chip; so the signature does not fit either."""
    assert names(Machine(vectors, f"{TOOLING}/hcl-report-snp.bin").appraise()) == [
        "snp.certificate.chip",
        "snp.signature.value",
    ]


def test_the_three_stored_forms_of_one_machine(vectors: Vectors) -> None:
    for version in ("v1", "v2"):
        table = read(vectors(f"attest/{SNP}/evidence-{version}.json"))
        machine = Machine(vectors, f"{SNP}/hcl-report.bin")
        text = table["hcl_report"]
        machine.report = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        leaf = table["vcek"]
        machine.certificates = (base64.urlsafe_b64decode(leaf + "=" * (-len(leaf) % 4)), *machine.certificates[1:])
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
