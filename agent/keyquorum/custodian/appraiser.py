# SPDX-License-Identifier: Apache-2.0
"""Having somebody else appraise a machine's evidence, and what their word is worth (docs/attestation-service.md §3).

Whatever is wrong with the answer, or with its way, is nothing learnt of the machine: *unreachable*, and never trust.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keyquorum.custodian import appraisal, appraisal_messages
from keyquorum.custodian.appraisal_messages import APPRAISAL_TYPE, PATH, AppraisalRequest
from keyquorum.envelope import dsse
from keyquorum.errors import KeyquorumError, TamperingError
from keyquorum.evidence import result as attestation
from keyquorum.evidence import tpm_appraisal
from keyquorum.evidence.instants import shown
from keyquorum.evidence.result import Check, Outcome, Status, printable
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.linux.web_request import Bounds
from keyquorum.model import release_messages, strict_json
from keyquorum.model.message_fields import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.custodian.appraisal import Appraised, Known
    from keyquorum.custodian.appraisal_messages import Appraisal
    from keyquorum.model.release_messages import TpmEvidence

# A machine waits for it, and a thread that works on the store: both must have time left to say *unreachable*.
ASKING = Bounds(step=5.0, whole=10.0, content=MAX_BODY)
_AHEAD = 300  # seconds that the service's clock may be ahead of ours
_SPEC = "docs/attestation-service.md §3"
_WHAT = "the appraiser's answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraiser:
    """An attestation service: its name, the key that signs its results, and how it is asked.

    `ask` takes a path and a body and returns the answer's; it raises `HolderError`.
    """

    name: str
    key: dsse.PublicKey
    ask: Callable[[str, bytes], bytes]

    def appraise(self, evidence: TpmEvidence, question: bytes, known: Known, now: int) -> Appraised:
        """Return what the service says of evidence, as `appraisal.appraise` would say it itself; raises nothing."""
        try:
            found = self._checked(evidence, question, known, now)
        except KeyquorumError as error:
            missing = attestation.unreachable(tpm_appraisal.TECHNOLOGY, now, f"{self.name}: {error.message}")
            return self._noted(appraisal.appraised(missing, None), Outcome.WAIVED)
        clock = found.clock if found.result.status is Status.TRUSTED else None
        return self._noted(appraisal.appraised(found.result, clock), Outcome.PASSED)

    def _noted(self, found: Appraised, outcome: Outcome) -> Appraised:
        actual = f"{self.name}, key {self.key.key_id}"
        check = Check(name="appraiser", spec=_SPEC, expected=self.name, actual=printable(actual), outcome=outcome)
        return replace(found, checks=(*found.checks, check))

    def _checked(self, evidence: TpmEvidence, question: bytes, known: Known, now: int) -> Appraisal:
        reference = strict_json.parse(known.reference.envelope, "the reference values", MAX_ENVELOPE, TamperingError)
        asked = AppraisalRequest(
            question=question,
            evidence=evidence,
            area=known.key.area,
            qualified_name=known.key.qualified_name,
            reference=reference,
            signer=known.reference.signers[0].raw if known.reference.signers else b"",
            last=known.last,
        )
        body = appraisal_messages.serialise_request(asked)
        if len(body) > MAX_BODY:
            raise TamperingError("the evidence", "", f"makes a request of {len(body)} bytes, more than {MAX_BODY}")
        envelope, _ = release_messages.parse_answer_body(self.ask(PATH, body))
        found = appraisal_messages.parse_payload(dsse.verify(dsse.parse(envelope, _WHAT), APPRAISAL_TYPE, (self.key,)))
        for name, wanted, given in (
            ("appraiser", self.name, found.appraiser),
            ("request", hashlib.sha256(body).hexdigest(), found.request.hex()),
            ("question", question.hex(), found.question.hex()),
            ("policy", appraisal_messages.policy_digest(reference).hex(), found.policy.hex()),
            ("result", tpm_appraisal.TECHNOLOGY, found.result.technology),
        ):
            if wanted != given:
                raise TamperingError(_WHAT, name, f"is {given}, not {wanted}")
        if not found.issued - _AHEAD <= now < found.expires:
            problem = f"counts from {shown(found.issued)} to before {shown(found.expires)}, and it is {shown(now)}"
            raise TamperingError(_WHAT, "expires", problem)
        return found
