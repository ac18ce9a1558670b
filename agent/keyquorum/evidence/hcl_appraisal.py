# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a confidential machine of Azure, on SEV-SNP or TDX (docs/attestation-azure.md §3).

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
    intel_appraisal,
    intel_checks,
    signed_policy,
    snp_appraisal,
    snp_checks,
    tpm_appraisal,
    tpm_checks,
    tpm_public,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
from keyquorum.evidence.result import Status
from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence
from keyquorum.evidence.tpm_quote import MIN_NONCE, AttestationKey, Challenge

if TYPE_CHECKING:
    from keyquorum.evidence.hcl_report import HclReport, RuntimeData
    from keyquorum.evidence.intel_bundle import Collateral
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy
    from keyquorum.evidence.snp_chain import SnpTrust
    from keyquorum.evidence.tpm_attest import ClockInfo
    from keyquorum.evidence.tpm_quote import QuoteEvidence

ON_SNP, ON_TDX = "azure-snp", "azure-tdx"
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
REFERENCES = {**snp_checks.REFERENCES, **intel_checks.REFERENCES, **tpm_checks.REFERENCES, **OWN}
_MACHINE = tpm_checks.QUOTE | frozenset(OWN)
REQUIRED = {ON_SNP: snp_checks.REPORT | _MACHINE, ON_TDX: intel_checks.TD | _MACHINE}
_KINDS = {hcl_report.SNP: "SEV-SNP", hcl_report.TDX: "TDX"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HclEvidence:
    """What a machine sent: NV index 0x01400001, a quote by its AK, and what vouches for the hardware report.

    That are the chip's certificates as in `SnpEvidence`, or the quote of the paravisor's trust domain and its
    collateral; of the other technology there is nothing.
    """

    report: bytes
    quote: QuoteEvidence
    certificates: tuple[bytes, ...] = ()
    td_quote: bytes = b""
    collateral: Collateral | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HclPolicies:
    """What must hold, each signed: of the paravisor and its chip, of the virtual machine, of what its TPM measured."""

    hardware: SignedPolicy
    machine: SignedPolicy
    tpm: SignedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpBase:
    """A machine has to be on SEV-SNP: whose word counts for chips; `chip_id` as in `SnpChallenge`."""

    trust: SnpTrust
    chip_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a trusted result leaves for the next challenge: counters of the TPM, and `IntelTrust.evaluation` (TDX)."""

    clock: ClockInfo
    evaluation: int


def appraise(
    evidence: HclEvidence, challenge: HclChallenge, base: SnpBase | IntelTrust, policies: HclPolicies, now: int
) -> tuple[AttestationResult, Remembered | None]:
    """Return what the evidence is worth at the instant `now`, and what to remember; never raises for bad evidence.

    `base` says on which technology the machine has to be: evidence never chooses by whom it is judged.
    """
    technology = ON_SNP if isinstance(base, SnpBase) else ON_TDX
    checks = Checks(REFERENCES)
    remembered = _story(evidence, challenge, base, policies, now=now, checks=checks)
    result = checks.conclude(technology, now, REQUIRED[technology])
    return result, remembered if result.status is Status.TRUSTED else None


def _story(
    evidence: HclEvidence,
    challenge: HclChallenge,
    base: SnpBase | IntelTrust,
    policies: HclPolicies,
    *,
    now: int,
    checks: Checks,
) -> Remembered | None:
    report = _parse(evidence.report, hcl_report.SNP if isinstance(base, SnpBase) else hcl_report.TDX, checks)
    if report is None:
        return None
    evaluation = _examine_hardware(report, evidence, base, policies.hardware, now=now, checks=checks)
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
    return None if clock is None else Remembered(clock=clock, evaluation=evaluation)


def _examine_hardware(
    report: HclReport,
    evidence: HclEvidence,
    base: SnpBase | IntelTrust,
    policy: SignedPolicy,
    *,
    now: int,
    checks: Checks,
) -> int:
    """Note what vouches for the paravisor and, by 64 bytes, for its JSON; returns `Remembered.evaluation`.

    The report of a trust domain is for its own machine only; a quote says the same to everybody.
    """
    if isinstance(base, SnpBase):
        guest = SnpEvidence(report=report.hardware, certificates=evidence.certificates)
        bound = SnpChallenge(report_data=report.report_data, chip_id=base.chip_id)
        snp_appraisal.examine(guest, bound, base.trust, policy, now=now, checks=checks)
        _name_policy("snp", checks)
        return 0
    domain = IntelEvidence(quote=evidence.td_quote, collateral=evidence.collateral)
    _, evaluation = intel_appraisal.examine(domain, report.report_data, policy, base, now=now, checks=checks)
    _name_policy("tdx", checks)
    return evaluation


def _name_policy(part: str, checks: Checks) -> None:
    """Three policies are at work: say of which part each was."""
    for claim in ("policy.name", "policy.serial"):
        if claim in checks.claims:
            checks.claim(f"{part}.{claim}", checks.claims.pop(claim))


def _parse(data: bytes, kind: int, checks: Checks) -> HclReport | None:
    try:
        report = hcl_report.parse(data, "the HCL report")
    except TamperingError as problem:
        checks.refuse("hcl.report.format", problem, "a report of Azure's paravisor")
        return None
    checks.demand("hcl.report.format", expected="well-formed", actual=f"{len(data)} bytes", holds=True)
    expected, actual = _KINDS[kind], _KINDS[report.kind]
    holds = checks.demand("hcl.report.kind", expected=expected, actual=actual, holds=report.kind == kind)
    return report if holds else None


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
    reference = signed_policy.accept(policy, hcl_policy.REFERENCE_TYPE, hcl_policy.parse, now, checks)
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
