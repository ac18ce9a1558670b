# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a quote: policy, verification, event log, reference values (docs/attestation.md §2, §5).

The order is that of the checks. Nothing is appraised that was not verified before, and everything that could change
the answer (instant, keys, policy, what is known of the machine) is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import reference_values, tpm_checks, tpm_log, tpm_quote
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import Status

if TYPE_CHECKING:
    from keyquorum.evidence.reference_values import ReferenceValues
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy
    from keyquorum.evidence.tpm_attest import ClockInfo
    from keyquorum.evidence.tpm_log import BelievedLog
    from keyquorum.evidence.tpm_quote import Challenge, QuoteEvidence, VerifiedQuote

TECHNOLOGY = "tpm"


def appraise(
    evidence: QuoteEvidence, challenge: Challenge, policy: SignedPolicy, now: int
) -> tuple[AttestationResult, ClockInfo | None]:
    """Return what the evidence is worth at the instant `now` (seconds since 1970); never raises for bad evidence.

    The counters of a trusted quote come with it: they are the next challenge's `last`.
    """
    checks = Checks(tpm_checks.REFERENCES)
    clock = examine(evidence, challenge, policy, now, checks)
    result = checks.conclude(TECHNOLOGY, now, tpm_checks.QUOTE)
    return result, clock if result.status is Status.TRUSTED else None


def examine(
    evidence: QuoteEvidence, challenge: Challenge, policy: SignedPolicy, now: int, checks: Checks
) -> ClockInfo | None:
    """Note every check of a quote; returns its counters, which count only if no check of the whole story failed."""
    reference = reference_values.load(policy, now, checks)
    if reference is None:
        return None
    quote = tpm_quote.verify(evidence, challenge, reference.bank, reference.selection, checks)
    if quote is None:
        return None
    _judge_clock(quote.clock, challenge, reference, checks)
    _judge_firmware(quote, reference, checks)
    log = _judge_log(evidence.log, quote, reference, checks)
    _judge_pcrs(quote, log, reference, checks)
    return quote.clock


def _judge_clock(clock: ClockInfo, challenge: Challenge, reference: ReferenceValues, checks: Checks) -> None:
    last, now = challenge.last, _clock_text(clock)
    if reference.safe_clock:
        checks.demand(
            "tpm.clock.safe",
            expected="a clock that shows no instant twice",
            actual=now if clock.safe else f"{now}, which may repeat: the TPM lost power without notice",
            holds=clock.safe,
        )
    else:
        checks.waive("tpm.clock.safe", "the policy takes any clock", now)
    if last is None:
        checks.waive("tpm.clock.forward", "the caller knows no earlier quote of this machine", now)
    else:
        # Only a safe clock is known never to have shown a later instant; the counters always only grow.
        later = (clock.reset_count, clock.restart_count) >= (last.reset_count, last.restart_count)
        checks.demand(
            "tpm.clock.forward",
            expected=f"not before {_clock_text(last)}",
            actual=now,
            holds=later and (not clock.safe or clock.clock >= last.clock),
        )
    if not challenge.same_boot:
        checks.waive("tpm.clock.same-boot", "the caller allows another boot", now)
        return
    same = last is not None and (last.reset_count, last.restart_count) == (clock.reset_count, clock.restart_count)
    expected = f"the boot of {_clock_text(last)}" if last else "an earlier quote to compare with"
    checks.demand("tpm.clock.same-boot", expected=expected, actual=now, holds=same)


def _clock_text(clock: ClockInfo) -> str:
    return f"reset {clock.reset_count}, restart {clock.restart_count}, clock {clock.clock} ms"


def _judge_firmware(quote: VerifiedQuote, reference: ReferenceValues, checks: Checks) -> None:
    found = f"{quote.firmware:#018x}"
    if reference.firmware is None:
        checks.waive("tpm.firmware.floor", "the policy takes any firmware of the TPM", found)
        return
    holds = quote.firmware >= reference.firmware
    checks.demand("tpm.firmware.floor", expected=f"at least {reference.firmware:#018x}", actual=found, holds=holds)


def _judge_log(data: bytes, quote: VerifiedQuote, reference: ReferenceValues, checks: Checks) -> BelievedLog | None:
    """Judge the log if the policy demands one; one that it does not demand is not read at all."""
    names = ("tpm.log.format", "tpm.log.replay", "tpm.log.separators", "tpm.log.secure-boot")
    if reference.log is None:
        for name in (*names, "tpm.log.exit-boot-services"):
            checks.waive(name, "the policy demands no event log")
        return None
    try:
        log = tpm_log.believe(data, quote.bank, quote.pcrs)
    except TamperingError as problem:
        checks.refuse("tpm.log.format", problem, "an event log of the PC Client profile")
        return None
    checks.demand("tpm.log.format", expected="an event log", actual=f"{len(data)} bytes", holds=True)
    unlike = ", ".join(map(str, log.unlike))
    if not checks.demand(
        "tpm.log.replay",
        expected="the quoted values of all PCRs in the log, and of all of the firmware",
        actual=f"another value of PCR {unlike}" if unlike else "the quoted values",
        holds=not unlike,
    ):
        return None
    _judge_boot(log, quote, reference.log, checks)
    return log


def _judge_boot(log: BelievedLog, quote: VerifiedQuote, rules: reference_values.LogRules, checks: Checks) -> None:
    bad = ", ".join(map(str, tpm_log.bad_separators(log, tuple(quote.pcrs))))
    checks.demand(
        "tpm.log.separators",
        expected="one separator in each PCR of the firmware",
        actual=f"none, several or an error in PCR {bad}" if bad else "one in each",
        holds=not bad,
    )
    mode = tpm_log.secure_boot(log)
    if rules.secure_boot:
        checks.demand("tpm.log.secure-boot", expected="on", actual=mode, holds=mode == "on")
    else:
        checks.waive("tpm.log.secure-boot", "the policy takes any state of Secure Boot", mode)
    left = "called" if tpm_log.left_firmware(log) else "not seen"
    if rules.exit_boot_services:
        holds = left == "called"
        checks.demand("tpm.log.exit-boot-services", expected="called", actual=left, holds=holds)
    else:
        checks.waive("tpm.log.exit-boot-services", "the policy does not ask whether firmware was left", left)
    checks.claim("tpm.secure-boot", mode)


def _judge_pcrs(quote: VerifiedQuote, log: BelievedLog | None, reference: ReferenceValues, checks: Checks) -> None:
    """Judge each PCR by its rule; a rule that needs a log which is not believed refuses."""
    wrong = []
    for pcr, rule in reference.pcrs.items():
        value = quote.pcrs[pcr]
        checks.claim(f"tpm.pcr{pcr}", value.hex())
        if rule.values and value not in rule.values:
            wrong.append(f"PCR {pcr} is {value.hex()}")
        elif rule.events:
            foreign = [event for event in log.of(pcr) if event.digest not in rule.events] if log else []
            if log is None or pcr not in log.events or foreign:
                wrong.append(f"PCR {pcr} has an event {foreign[0].digest.hex()}" if foreign else f"PCR {pcr}: no log")
        elif rule.log and (log is None or pcr not in log.events):
            wrong.append(f"PCR {pcr} is not explained by the log")
        elif not rule.judged:
            checks.waive("tpm.pcr.unjudged", f"the policy takes any value of PCR {pcr}", value.hex())
    checks.demand(
        "tpm.pcr.values",
        expected=f"values of the policy {reference.name}, serial {reference.serial}",
        actual="; ".join(wrong) or "values of the policy",
        holds=not wrong,
    )
