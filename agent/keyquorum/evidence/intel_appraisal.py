# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a quote of TDX or SGX: policy, signatures, collateral, reference values.

docs/attestation-intel.md §1. Everything that could change the answer is an argument. A quote whose signatures hold is
judged whole, also where its collateral does not: whoever reads the result should see all that is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.evidence import intel_checks, intel_reference, intel_standing, intel_verify, reference_values
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.intel_quote import SGX, TDX, EnclaveReport, TdReport
from keyquorum.evidence.intel_reference import ENCLAVE_ATTRIBUTES, INTEL_TYPE, MEASUREMENTS, TD_ATTRIBUTES
from keyquorum.evidence.intel_tcb import REVOKED, UP_TO_DATE
from keyquorum.evidence.result import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.intel_certificates import Platform
    from keyquorum.evidence.intel_reference import EnclaveRule, IntelReference
    from keyquorum.evidence.intel_tcb import Standing
    from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
    from keyquorum.evidence.reference_values import SignedPolicy
    from keyquorum.evidence.result import AttestationResult

# TDX Module ABI, XFAM: bits that must be set, and all that may be. x87 and SSE are always there.
XFAM_FIXED_1, XFAM_FIXED_0 = 0x3, 0x6DBE7
_INIT, _MODE64 = 1 << 0, 1 << 2
_ENCLAVE_KNOWN = 0xF7 | 1 << 10  # INIT, DEBUG, MODE64BIT, PROVISIONKEY, EINITTOKEN_KEY, CET, KSS; AEXNOTIFY
_SHOWN = 2


def appraise(
    evidence: IntelEvidence, report_data: bytes, policy: SignedPolicy, trust: IntelTrust, now: int
) -> tuple[AttestationResult, int]:
    """Return what the evidence is worth at the instant `now` (seconds since 1970); never raises for bad evidence.

    `report_data` are the 64 bytes that the quote must carry (`binding.report_data`). With the result comes the
    tcbEvaluationDataNumber to remember: the next appraisal's `trust.evaluation`.
    """
    checks = Checks(intel_checks.REFERENCES)
    tee, evaluation = _story(evidence, report_data, policy, (trust, now), checks)
    required = intel_checks.ENCLAVE if tee == SGX else intel_checks.TD
    result = checks.conclude(tee, now, required)
    known = trust.evaluation
    return result, max(known, evaluation) if result.status is Status.TRUSTED else known


def _story(
    evidence: IntelEvidence, report_data: bytes, policy: SignedPolicy, known: tuple[IntelTrust, int], checks: Checks
) -> tuple[str, int]:
    trust, now = known
    reference = reference_values.accept(policy, INTEL_TYPE, intel_reference.parse, now, checks)
    if reference is None:
        return TDX, 0
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
            _judge_td(quote.body, reference, checks)
        else:
            _judge_enclave(quote.body, reference, checks)
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


def _judge_td(td: TdReport, reference: IntelReference, checks: Checks) -> None:
    attributes = int.from_bytes(td.attributes, "little")
    known = sum(1 << bit for bit, _ in TD_ATTRIBUTES.values())
    unknown = attributes & ~known
    checks.demand("tdx.attributes.reserved", expected="zero", actual=f"{unknown:#x}", holds=not unknown)
    _judge_attributes("tdx", attributes, TD_ATTRIBUTES, reference, checks)
    xfam = int.from_bytes(td.xfam, "little")
    checks.demand(
        "tdx.xfam.fixed",
        expected=f"all of {XFAM_FIXED_1:#x}, none beyond {XFAM_FIXED_0:#x}",
        actual=f"{xfam:#x}",
        holds=xfam & XFAM_FIXED_1 == XFAM_FIXED_1 and not xfam & ~XFAM_FIXED_0,
    )
    if reference.xfam is None:
        checks.waive("tdx.xfam.allowed", "the policy takes all that the TDX module does", f"{xfam:#x}")
    else:
        holds = not xfam & ~reference.xfam
        checks.demand("tdx.xfam.allowed", expected=f"none beyond {reference.xfam:#x}", actual=f"{xfam:#x}", holds=holds)
    for name in MEASUREMENTS:
        _judge_value("tdx", name, getattr(td, name), reference, checks)
    if td.mrservicetd:
        _judge_value("tdx", "mrservicetd", td.mrservicetd, reference, checks)
    else:
        checks.waive("tdx.mrservicetd", "a body of TDX 1.0 does not say it")


def _judge_attributes(
    tee: str, value: int, known: Mapping[str, tuple[int, bool]], reference: IntelReference, checks: Checks
) -> None:
    for name, (bit, safe) in known.items():
        found = bool(value >> bit & 1)
        word = "on" if found else "off"
        if name in reference.any_attributes:
            checks.waive(f"{tee}.attributes.{name}", "the policy takes any value", word)
        else:
            expected = "on" if safe else "off"
            checks.demand(f"{tee}.attributes.{name}", expected=expected, actual=word, holds=found == safe)


def _judge_value(tee: str, name: str, value: bytes, reference: IntelReference, checks: Checks) -> None:
    wanted = reference.values.get(name)
    if wanted is None:
        checks.waive(f"{tee}.{name}", "the policy takes any value", value.hex())
    else:
        shown = ", ".join(one.hex() for one in sorted(wanted)[:_SHOWN])
        expected = shown if len(wanted) <= _SHOWN else f"one of {len(wanted)} values of the policy"
        checks.demand(f"{tee}.{name}", expected=expected, actual=value.hex(), holds=value in wanted)
    checks.claim(f"{tee}.{name}", value.hex())


def _judge_enclave(enclave: EnclaveReport, reference: IntelReference, checks: Checks) -> None:
    flags = enclave.flags
    for name, bit in (("init", _INIT), ("mode64", _MODE64)):
        word = "on" if flags & bit else "off"
        checks.demand(f"sgx.attributes.{name}", expected="on", actual=word, holds=word == "on")
    unknown = flags & ~_ENCLAVE_KNOWN
    checks.demand("sgx.attributes.reserved", expected="zero", actual=f"{unknown:#x}", holds=not unknown)
    _judge_attributes("sgx", flags, ENCLAVE_ATTRIBUTES, reference, checks)
    shown = f"MRENCLAVE {enclave.mrenclave.hex()}"
    checks.demand(
        "sgx.identity",
        expected=f"one of {len(reference.enclaves)} enclaves of the policy",
        actual=f"{shown}, MRSIGNER {enclave.mrsigner.hex()}, {enclave.product}, {enclave.security_version}",
        holds=any(_is_enclave(rule, enclave) for rule in reference.enclaves),
    )
    for name in ("configid", "isvextprodid", "isvfamilyid"):
        _judge_value("sgx", name, getattr(enclave, name), reference, checks)
    for name in ("mrenclave", "mrsigner"):
        checks.claim(f"sgx.{name}", getattr(enclave, name).hex())
    checks.claim("sgx.isvprodid", str(enclave.product))
    checks.claim("sgx.isvsvn", str(enclave.security_version))


def _is_enclave(rule: EnclaveRule, enclave: EnclaveReport) -> bool:
    if rule.mrenclave:
        return enclave.mrenclave == rule.mrenclave
    same = (enclave.mrsigner, enclave.product) == (rule.mrsigner, rule.isvprodid)
    return same and enclave.security_version >= rule.isvsvn
