# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a quote of TDX or SGX: policy, signatures, collateral, reference values.

docs/attestation-intel.md §1. Everything that could change the answer is an argument. A quote whose signatures hold is
judged whole, also where its collateral does not: whoever reads the result should see all that is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.evidence import (
    intel_body,
    intel_checks,
    intel_reference,
    intel_standing,
    intel_verify,
    signed_policy,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.intel_quote import SGX, TdReport
from keyquorum.evidence.intel_reference import INTEL_TYPE
from keyquorum.evidence.intel_tcb import REVOKED, UP_TO_DATE
from keyquorum.evidence.result import Status

if TYPE_CHECKING:
    from keyquorum.evidence.intel_certificates import Platform
    from keyquorum.evidence.intel_reference import IntelReference
    from keyquorum.evidence.intel_tcb import Standing
    from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy

TECHNOLOGY = "intel"  # where no policy says which


def appraise(
    evidence: IntelEvidence, report_data: bytes, policy: SignedPolicy, trust: IntelTrust, now: int
) -> tuple[AttestationResult, int]:
    """Return what the evidence is worth at the instant `now` (seconds since 1970); never raises for bad evidence.

    `report_data` are the 64 bytes that the quote must carry (`binding.report_data`). With the result comes the
    tcbEvaluationDataNumber to remember: the next appraisal's `trust.evaluation`.
    """
    checks = Checks(intel_checks.REFERENCES)
    tee, evaluation = examine(evidence, report_data, policy, trust, now=now, checks=checks)
    required = intel_checks.ENCLAVE if tee == SGX else intel_checks.TD
    result = checks.conclude(tee, now, required)
    return result, evaluation if result.status is Status.TRUSTED else trust.evaluation


def examine(
    evidence: IntelEvidence, report_data: bytes, policy: SignedPolicy, trust: IntelTrust, *, now: int, checks: Checks
) -> tuple[str, int]:
    """Note every check of a quote; returns the policy's TEE, and the number to remember if no check failed."""
    reference = signed_policy.accept(policy, INTEL_TYPE, intel_reference.parse, now, checks)
    if reference is None:
        return TECHNOLOGY, 0
    verified = intel_verify.verify(evidence, report_data, trust, now, checks)
    if verified is None:
        return reference.tee, 0
    quote = verified.quote
    _judge_platform(verified.platform, reference, checks)
    bounds = intel_standing.Bounds(roots=trust.roots, now=now, floor=max(trust.evaluation, reference.tcb.lowest))
    found = intel_standing.judge(verified, evidence.collateral, bounds, checks)
    if found is not None:
        _judge_standing(found[0], reference, now, checks)
    if checks.demand("policy.tee", expected=reference.tee, actual=quote.tee, holds=reference.tee == quote.tee):
        if isinstance(quote.body, TdReport):
            intel_body.judge_td(quote.body, evidence.log, reference, checks)
        else:
            intel_body.judge_enclave(quote.body, reference, checks)
    return reference.tee, found[1] if found is not None else 0


def _judge_platform(platform: Platform, reference: IntelReference, checks: Checks) -> None:
    rules, ppid = reference.platforms, platform.ppid.hex()
    if rules.allowed is None:
        checks.waive("intel.platform.allowed", "the policy takes any platform", ppid)
    else:
        holds = platform.ppid in rules.allowed
        checks.demand("intel.platform.allowed", expected="a PPID of the policy", actual=ppid, holds=holds)
    checks.demand(
        "intel.platform.denied",
        expected="neither PPID nor FMSPC among the denied",
        actual=f"PPID {ppid}, FMSPC {platform.fmspc.hex()}",
        holds=rules.denied.isdisjoint({platform.ppid, platform.fmspc}),
    )
    checks.claim("intel.ppid", ppid)
    checks.claim("intel.fmspc", platform.fmspc.hex())


def _judge_standing(standing: Standing, reference: IntelReference, now: int, checks: Checks) -> None:
    """Only UpToDate without advisories counts, but for what the policy takes until an instant; that shows as waived."""
    rules, status = reference.tcb, standing.status
    until = rules.statuses.get(status, 0)
    if status not in {UP_TO_DATE, REVOKED} and now < until:
        checks.waive("intel.tcb.status", f"the policy takes {status} until {until}", status)
    else:
        ended = f", which was taken until {until}" if until else ""
        checks.demand("intel.tcb.status", expected=UP_TO_DATE, actual=status + ended, holds=status == UP_TO_DATE)
    taken = [name for name in standing.advisories if now < rules.advisories.get(name, 0)]
    rest = [name for name in standing.advisories if name not in taken]
    if taken and not rest:
        words = ", ".join(f"{name} until {rules.advisories[name]}" for name in taken)
        checks.waive("intel.tcb.advisories", f"the policy takes {words}", ", ".join(taken))
    else:
        shown = ", ".join(rest) or "none"
        checks.demand("intel.tcb.advisories", expected="none that is open", actual=shown, holds=not rest)
    checks.claim("intel.tcb-status", status)
    checks.claim("intel.advisories", ", ".join(standing.advisories) or "none")
