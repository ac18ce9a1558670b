# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a confidential machine of Azure on SEV-SNP (docs/attestation-azure.md §3).

The chip vouches for the paravisor and for the JSON it wrote; the JSON vouches for the key of the virtual TPM; that key
signs the quote with the nonce. Each step is the verifier of its own technology.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    hcl_policy,
    hcl_report,
    reference_values,
    snp_appraisal,
    snp_checks,
    tpm_appraisal,
    tpm_checks,
    tpm_public,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import Status
from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence
from keyquorum.evidence.tpm_quote import MIN_NONCE, AttestationKey, Challenge

if TYPE_CHECKING:
    from keyquorum.evidence.hcl_report import HclReport, RuntimeData
    from keyquorum.evidence.reference_values import SignedPolicy
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.snp_chain import SnpTrust
    from keyquorum.evidence.tpm_attest import ClockInfo
    from keyquorum.evidence.tpm_quote import QuoteEvidence

TECHNOLOGY = "azure-snp"
_OURS = "docs/attestation-azure.md"
OWN = {
    "hcl.report.format": f"{_OURS} §2",
    "hcl.report.kind": f"{_OURS} §2",
    "hcl.runtime.format": f"{_OURS} §2",
    "hcl.user-data": f"{_OURS} §3",
    "hcl.secure-boot": f"{_OURS} §4",
    "hcl.tpm": f"{_OURS} §4",
    "hcl.console": f"{_OURS} §4",
    "hcl.machine": f"{_OURS} §4",
}
REFERENCES = {**snp_checks.REFERENCES, **tpm_checks.REFERENCES, **OWN}
REQUIRED = snp_checks.REPORT | tpm_checks.QUOTE | frozenset(OWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class HclEvidence:
    """What a machine sent: NV index 0x01400001, the chip's certificates as in `SnpEvidence`, a quote by its AK."""

    report: bytes
    certificates: tuple[bytes, ...]
    quote: QuoteEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class HclChallenge:
    """What the verifier knows and asked for; as in `tpm_quote.Challenge`, but the key comes with the evidence.

    `user_data` are 64 bytes that the guest had to write for the hardware report; None: any.
    """

    extra_data: bytes
    last: ClockInfo | None = None
    same_boot: bool = False
    min_nonce: int = MIN_NONCE
    user_data: bytes | None = None
    chip_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HclPolicies:
    """What must hold, each signed: of the paravisor and its chip, of the virtual machine, of what its TPM measured."""

    snp: SignedPolicy
    machine: SignedPolicy
    tpm: SignedPolicy


def appraise(
    evidence: HclEvidence, challenge: HclChallenge, trust: SnpTrust, policies: HclPolicies, now: int
) -> tuple[AttestationResult, ClockInfo | None]:
    """Return what the evidence is worth at the instant `now`, as `tpm_appraisal.appraise`; never raises for bad one."""
    checks = Checks(REFERENCES)
    clock = _story(evidence, challenge, trust, policies, now=now, checks=checks)
    result = checks.conclude(TECHNOLOGY, now, REQUIRED)
    return result, clock if result.status is Status.TRUSTED else None


def _story(
    evidence: HclEvidence, challenge: HclChallenge, trust: SnpTrust, policies: HclPolicies, *, now: int, checks: Checks
) -> ClockInfo | None:
    report = _parse(evidence.report, checks)
    if report is None:
        return None
    bound = SnpChallenge(report_data=report.report_data, chip_id=challenge.chip_id)
    hardware = SnpEvidence(report=report.hardware, certificates=evidence.certificates)
    snp_appraisal.examine(hardware, bound, trust, policies.snp, now=now, checks=checks)
    _name_policy("snp", checks)
    if checks.failed:
        return None
    runtime = _parse_runtime(report, checks)
    if runtime is None:
        return None
    _judge_machine(runtime, challenge, policies.machine, now, checks)
    _name_policy("hcl", checks)
    area = tpm_public.parse(runtime.ak, "the attestation key")
    asked = Challenge(
        key=AttestationKey(area=runtime.ak, qualified_name=tpm_public.qualified_name((area.name,))),
        extra_data=challenge.extra_data,
        last=challenge.last,
        same_boot=challenge.same_boot,
        min_nonce=challenge.min_nonce,
    )
    clock = tpm_appraisal.examine(evidence.quote, asked, policies.tpm, now, checks)
    _name_policy("tpm", checks)
    return clock


def _name_policy(part: str, checks: Checks) -> None:
    """Three policies are at work: say of which part each was."""
    for claim in ("policy.name", "policy.serial"):
        if claim in checks.claims:
            checks.claim(f"{part}.{claim}", checks.claims.pop(claim))


def _parse(data: bytes, checks: Checks) -> HclReport | None:
    try:
        report = hcl_report.parse(data, "the HCL report")
    except TamperingError as problem:
        checks.refuse("hcl.report.format", problem, "a report of Azure's paravisor")
        return None
    checks.demand("hcl.report.format", expected="well-formed", actual=f"{len(data)} bytes", holds=True)
    snp = report.kind == hcl_report.SNP
    shown = "SEV-SNP" if snp else "TDX"
    return report if checks.demand("hcl.report.kind", expected="SEV-SNP", actual=shown, holds=snp) else None


def _parse_runtime(report: HclReport, checks: Checks) -> RuntimeData | None:
    try:
        found = hcl_report.parse_runtime(report.runtime)
    except TamperingError as problem:
        checks.refuse("hcl.runtime.format", problem, "one attestation key, and how the machine is set up")
        return None
    checks.demand("hcl.runtime.format", expected="well-formed", actual="well-formed", holds=True)
    return found


def _judge_machine(
    runtime: RuntimeData, challenge: HclChallenge, policy: SignedPolicy, now: int, checks: Checks
) -> None:
    if challenge.user_data is None:
        checks.waive("hcl.user-data", "the caller asked for none", runtime.user_data.hex() or "none")
    else:
        checks.demand(
            "hcl.user-data",
            expected=challenge.user_data.hex() or "64 bytes",
            actual=runtime.user_data.hex() or "none",
            holds=bool(challenge.user_data) and hmac.compare_digest(runtime.user_data, challenge.user_data),
        )
    reference = reference_values.accept(policy, hcl_policy.REFERENCE_TYPE, hcl_policy.parse, now, checks)
    if reference is None:
        return
    states = {
        "secure-boot": (runtime.secure_boot, True, reference.secure_boot),
        "tpm": (runtime.tpm, True, reference.tpm),
        "console": (runtime.console, False, reference.console),
    }
    for word, (found, safe, demanded) in states.items():
        shown, wanted = "on" if found else "off", "on" if safe else "off"
        if demanded:
            checks.demand(f"hcl.{word}", expected=wanted, actual=shown, holds=found == safe)
        else:
            checks.waive(f"hcl.{word}", "the policy does not ask", shown)
    if reference.machines is None:
        checks.waive("hcl.machine", "the policy takes any machine", runtime.machine)
    else:
        shown = ", ".join(sorted(reference.machines)) or "no machine"
        holds = runtime.machine in reference.machines
        checks.demand("hcl.machine", expected=shown, actual=runtime.machine, holds=holds)
    checks.claim("hcl.machine", runtime.machine)
