# SPDX-License-Identifier: Apache-2.0
"""What a custodian and an attestation service say to each other (docs/attestation-service.md §1), for both ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.evidence import result as attestation
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.model import message_fields, release_messages, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.message_fields import VERSION
from keyquorum.model.release_messages import QUESTION

if TYPE_CHECKING:
    from typing import Any

    from keyquorum.evidence.result import AttestationResult
    from keyquorum.model.release_messages import TpmEvidence

APPRAISAL_TYPE = "application/vnd.keyquorum.appraisal.v1+json"
LIFE = 60  # seconds that a result counts
PATH = "/v1/appraise"
_MAX_NAME = 128
_MAX_TIME = 1 << 40
_MAX_CLOCK = (1 << 63) - 1
_MAX_AREA = 1024
_WHAT, _REQUEST = "the appraiser's answer", "the custodian's request"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalRequest:
    """Evidence that must answer `question` (32 bytes), and by what: key, reference values, the last counters.

    `signer` is the Ed25519 key of whoever must have signed the reference values, b"" for nobody's.
    """

    question: bytes
    evidence: TpmEvidence
    area: bytes
    qualified_name: bytes
    reference: dict[str, Any]
    signer: bytes
    last: ClockInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What the service signs. `request` and `policy` are SHA-256; instants in seconds since 1970."""

    appraiser: str
    request: bytes
    question: bytes
    policy: bytes
    issued: int
    expires: int
    result: AttestationResult
    clock: ClockInfo | None


def policy_digest(reference: dict[str, Any]) -> bytes:
    """Return the SHA-256 of signed reference values."""
    return hashlib.sha256(strict_json.serialise(reference)).digest()


def serialise_request(request: AppraisalRequest) -> bytes:
    """Write a request."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "question": request.question.hex(),
            "evidence": release_messages.evidence_to_json(request.evidence),
            "key": {
                "area": strict_json.to_base64(request.area),
                "qualified_name": strict_json.to_base64(request.qualified_name),
            },
            "reference": request.reference,
            "signer": request.signer.hex(),
            "last": _clock_to_json(request.last),
        }
    )


def parse_request(data: bytes) -> AppraisalRequest:
    """Read a request; raises `TamperingError`."""
    fields = message_fields.read(data, _REQUEST)
    key = fields.table("key")
    signer = fields.take("signer")
    found = AppraisalRequest(
        question=fields.hexadecimal("question", QUESTION),
        evidence=release_messages.take_evidence(fields),
        area=key.data("area", longest=_MAX_AREA),
        qualified_name=key.data("qualified_name", longest=_MAX_AREA),
        reference=fields.raw_table("reference"),
        signer=b"" if signer == "" else Fields({"signer": signer}, _REQUEST, TamperingError).hexadecimal("signer", 32),
        last=_take_clock(fields, "last"),
    )
    for fully_read in (key, fields):
        fully_read.finish()
    return found


def payload(appraisal: Appraisal) -> bytes:
    """Write what is signed as `APPRAISAL_TYPE`."""
    whole = attestation.serialise(appraisal.result)
    return strict_json.serialise(
        {
            "version": VERSION,
            "appraiser": appraisal.appraiser,
            "request": appraisal.request.hex(),
            "question": appraisal.question.hex(),
            "policy": appraisal.policy.hex(),
            "issued": appraisal.issued,
            "expires": appraisal.expires,
            "result": strict_json.parse(whole, _WHAT, attestation.MAX_RESULT, TamperingError),
            "clock": _clock_to_json(appraisal.clock),
        }
    )


def parse_payload(data: bytes) -> Appraisal:
    """Read what was verified; raises `TamperingError`, also for a result that contradicts itself."""
    fields = Fields.read(data, _WHAT, dsse.MAX_PAYLOAD, TamperingError)
    fields.version(VERSION)
    found = Appraisal(
        appraiser=fields.text("appraiser", longest=_MAX_NAME),
        request=fields.hexadecimal("request", 32),
        question=fields.hexadecimal("question", QUESTION),
        policy=fields.hexadecimal("policy", 32),
        issued=fields.integer("issued", 0, _MAX_TIME),
        expires=fields.integer("expires", 0, _MAX_TIME),
        result=attestation.parse(strict_json.serialise(fields.raw_table("result")), _WHAT),
        clock=_take_clock(fields, "clock"),
    )
    fields.finish()
    return found


def _clock_to_json(clock: ClockInfo | None) -> dict[str, Any] | None:
    if clock is None:
        return None
    return {
        "resets": clock.reset_count,
        "restarts": clock.restart_count,
        "clock": clock.clock,
        "safe": clock.safe,
    }


def _take_clock(fields: Fields, name: str) -> ClockInfo | None:
    if not fields.has(name):
        fields.take(name)  # null must be written
        return None
    table = fields.table(name)
    found = ClockInfo(
        reset_count=table.integer("resets", 0, (1 << 32) - 1),
        restart_count=table.integer("restarts", 0, (1 << 32) - 1),
        clock=table.integer("clock", 0, _MAX_CLOCK),
        safe=table.flag("safe"),
    )
    table.finish()
    return found
