# SPDX-License-Identifier: Apache-2.0
"""How a machine asks a custodian for its evidence, and the answer (docs/holders-enclave.md §4), for both ends.

The answer is the payload of a DSSE envelope, whose signature is checked before anything here reads it. What is in the
evidence is read by `evidence.bundle`.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import fragment_name, message_fields, strict_json
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.message_fields import MAX_BODY, VERSION
from keyquorum.model.release_messages import NONCE
from keyquorum.record import Record

EVIDENCE_TYPE = "application/vnd.keyquorum.custodian-evidence.v1+json"
MAX_PARTS = 32 * 1024  # bytes of all parts: base64 within an envelope makes 57 KiB of them
_MAX_NAME = 128
_WHAT = "the custodian's evidence"


class EvidenceQuestion(Record):
    """For which deposit the evidence is to be, and the machine's nonce (32 bytes)."""

    fragment: FragmentName
    nonce: bytes


def request(question: EvidenceQuestion) -> bytes:
    """Write the question."""
    return strict_json.serialise({"version": VERSION, **question.fragment.to_json(), "nonce": question.nonce.hex()})


def parse_request(data: bytes) -> EvidenceQuestion:
    """Read the question; raises `TamperingError`."""
    fields = message_fields.read(data, "the machine's request")
    found = EvidenceQuestion(fragment=fragment_name.take(fields), nonce=fields.hexadecimal("nonce", NONCE))
    fields.finish()
    return found


def payload(custodian: str, question: EvidenceQuestion, bundle: bytes) -> bytes:
    """Write what a custodian signs as `EVIDENCE_TYPE`; `bundle` is a bundle as `evidence.bundle` writes it."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": custodian,
            **question.fragment.to_json(),
            "nonce": question.nonce.hex(),
            "evidence": strict_json.parse(bundle, _WHAT, MAX_BODY, TamperingError),
        }
    )


def parse_payload(data: bytes, custodian: str, question: EvidenceQuestion) -> bytes:
    """Return the bundle of `custodian` for this question, unread; raises `TamperingError` for another's."""
    fields = message_fields.read(data, _WHAT)
    name = fields.text("custodian", longest=_MAX_NAME)
    answered = EvidenceQuestion(fragment=fragment_name.take(fields), nonce=fields.hexadecimal("nonce", NONCE))
    table = fields.raw_table("evidence")
    fields.finish()
    if name != custodian:
        raise TamperingError(_WHAT, "custodian", f"is {name}, not {custodian}")
    if answered != question:
        raise TamperingError(_WHAT, "nonce", "is for another question or another fragment")
    return strict_json.serialise(table)
