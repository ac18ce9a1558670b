# SPDX-License-Identifier: Apache-2.0
"""The attestation service: judges what custodians send it, and signs the result (docs/attestation-service.md §1, §2).

It keeps nothing between two requests. Clock and key are arguments.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import appraisal, appraisal_messages
from keyquorum.custodian.admission import Pace, block
from keyquorum.custodian.appraisal_messages import APPRAISAL_TYPE, LIFE, PATH, Appraisal
from keyquorum.custodian.http_head import Answer
from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.tpm_quote import AttestationKey
from keyquorum.model import release_messages, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyquorum.custodian.admission import Limits
    from keyquorum.custodian.decision import Client
    from keyquorum.custodian.http_head import Head
    from keyquorum.envelope.signing import Owner

_LATER = 60  # seconds: Retry-After


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Who appraises: its name, the key that signs, and a clock in seconds since 1970."""

    name: str
    signer: Owner
    now: Callable[[], int]

    def appraise(self, body: bytes) -> dict[str, Any]:
        """Return the signed result for a request; raises `TamperingError` for what is none."""
        asked, now = appraisal_messages.parse_request(body), self.now()
        known = appraisal.Known(
            key=AttestationKey(area=asked.area, qualified_name=asked.qualified_name),
            reference=SignedPolicy(
                envelope=strict_json.serialise(asked.reference),
                signers=(dsse.PublicKey(raw=asked.signer),) if asked.signer else (),
            ),
            last=asked.last,
        )
        found = appraisal.appraise(asked.evidence, asked.question, known, now)
        made = Appraisal(
            appraiser=self.name,
            request=hashlib.sha256(body).digest(),
            question=asked.question,
            policy=appraisal_messages.policy_digest(asked.reference),
            issued=now,
            expires=now + LIFE,
            result=found.result,
            clock=found.clock,
        )
        return self.signer.sign(APPRAISAL_TYPE, appraisal_messages.payload(made))


class Bureau:
    """The requests of one process. `respond` is called by the connections' threads."""

    def __init__(self, verifier: Verifier, limits: Limits) -> None:
        self._verifier, self._pace = verifier, Pace(limits)

    def respond(self, client: Client | None, address: str, head: Head, body: bytes, _seconds: float) -> Answer:
        """Answer a request. Appraising takes milliseconds and waits for nobody."""
        if not self._pace.allows(block(address).encode() if client is None else client.key, time.monotonic()):
            return _problem(429, "this client asks too often", _LATER)
        if client is None:
            return _problem(403, "this service needs a client certificate")
        if head.path != PATH:
            return _problem(404, "there is no such path")
        if head.method != "POST":
            return _problem(405, "this path takes POST")
        try:
            envelope = self._verifier.appraise(body)
        except TamperingError as error:
            return _problem(400, error.message)
        return Answer(status=200, body=release_messages.answer_body(envelope))


def _problem(status: int, line: str, retry_after: int = 0) -> Answer:
    return Answer(status=status, body=strict_json.serialise({"problem": line}), retry_after=retry_after)
