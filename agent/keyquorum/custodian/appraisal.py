# SPDX-License-Identifier: Apache-2.0
"""What a machine's evidence is worth to a decision (docs/custodian.md §4, step 4); all that counts is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.evidence import result as attestation
from keyquorum.evidence import tpm_appraisal
from keyquorum.evidence.result import Check, Outcome, Status, printable
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence

if TYPE_CHECKING:
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy
    from keyquorum.evidence.tpm_attest import ClockInfo
    from keyquorum.model.release_messages import TpmEvidence

_MOST_FAILED = 8  # of an untrusted result that go into the entry; the whole result is kept beside it
_SPEC = "docs/attestation.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraised:
    """The result, its JSON form, the counters of a trusted quote, and what the log entry says of it."""

    result: AttestationResult
    kept: bytes
    clock: ClockInfo | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the custodian knows of the machine, and what its owner demands of it."""

    key: AttestationKey
    reference: SignedPolicy
    last: ClockInfo | None


def appraise(evidence: TpmEvidence, question: bytes, known: Known, now: int) -> Appraised:
    """Appraise evidence that must answer `question` (32 bytes) at the instant `now`; bad evidence raises nothing."""
    if not (evidence.attest or evidence.signature or evidence.pcrs):
        missing = attestation.unreachable(tpm_appraisal.TECHNOLOGY, now, "the machine sent no evidence")
        return appraised(missing, None)
    quoted = QuoteEvidence(
        attest=evidence.attest, signature=evidence.signature, pcrs=dict(evidence.pcrs), log=evidence.log
    )
    challenge = Challenge(key=known.key, extra_data=question, last=known.last)
    return appraised(*tpm_appraisal.appraise(quoted, challenge, known.reference, now))


def appraised(result: AttestationResult, clock: ClockInfo | None) -> Appraised:
    """Return a result with what is kept of it and what the entry says; `clock` are the counters of a trusted one."""
    outcomes = {Status.TRUSTED: Outcome.PASSED, Status.UNREACHABLE: Outcome.WAIVED, Status.UNTRUSTED: Outcome.FAILED}
    actual = f"{result.status}: {result.reason}" if result.reason else str(result.status)
    summary = Check(
        name="evidence", spec=_SPEC, expected="trusted", actual=printable(actual), outcome=outcomes[result.status]
    )
    return Appraised(
        result=result,
        kept=attestation.serialise(result),
        clock=clock,
        checks=(*result.failed[:_MOST_FAILED], summary),
    )
