# SPDX-License-Identifier: Apache-2.0
"""What a machine and a custodian say to each other (docs/custodian.md §3): strict readers and writers for both ends.

What the custodian says is the payload of a DSSE envelope, whose signature is checked before anything here reads it.
This file is also for a boot, so it imports nothing that a boot does not have.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import fragment_name, message_fields, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_TIME
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.message_fields import MAX_BODY, VERSION
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHALLENGE_TYPE = "application/vnd.keyquorum.challenge.v1+json"
ANSWER_TYPE = "application/vnd.keyquorum.release-answer.v1+json"
NONCE = 32
QUESTION = 32  # `evidence.binding.qualifying_data` of nonce, custodian, fragment and one-time key
KEMS = ("x-wing", "x25519")
MAX_RETRY = 3600  # seconds
_MAX_KEY = 4096
_MAX_LOG = 44 * 1024  # base64 makes 59 KiB of it
_MAX_NAME = 128
_PCRS = 24
_MAX_SHOWN = 256
_DIGESTS = (32, 48, 64)
_WHAT = "the custodian's answer"


class TpmEvidence(Record):
    """A quote, its signature, the PCR values that it is of, by number, and the event log ("" for none)."""

    attest: bytes
    signature: bytes
    pcrs: tuple[tuple[int, bytes], ...]
    log: bytes = b""


class ReleaseRequest(Record):
    """A machine's request. `key` is its one-time public key, SubjectPublicKeyInfo in DER, for `kem`."""

    nonce: bytes
    fragment: FragmentName
    kem: str
    key: bytes
    evidence: TpmEvidence


class Challenge(Record):
    """A nonce of a custodian for one fragment, good until `expires` (seconds since 1970, by the custodian's clock)."""

    custodian: str
    fragment: FragmentName
    nonce: bytes
    expires: int


class Released(Record):
    """A fragment's identity, sealed to the one-time key of the question (32 bytes); `number` is that of the entry."""

    question: bytes
    number: int
    enc: bytes
    ciphertext: bytes


class Waiting(Record):
    """The request waits for people under `number`; ask again after `retry_after` seconds."""

    question: bytes
    number: int
    retry_after: int


class Denied(Record):
    """Why not: the first check that failed (I8), and the entry that has all of them."""

    question: bytes
    number: int
    check: str
    expected: str
    actual: str


def challenge_request(wanted: FragmentName) -> bytes:
    """Write what a machine asks for first."""
    return strict_json.serialise({"version": VERSION, **wanted.to_json()})


def parse_challenge_request(data: bytes) -> FragmentName:
    """Read it; raises `TamperingError`."""
    fields = message_fields.read(data, "the machine's request")
    found = fragment_name.take(fields)
    fields.finish()
    return found


def challenge_payload(challenge: Challenge) -> bytes:
    """Write what a custodian signs as `CHALLENGE_TYPE`."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": challenge.custodian,
            "nonce": challenge.nonce.hex(),
            "expires": challenge.expires,
            **challenge.fragment.to_json(),
        }
    )


def parse_challenge(payload: bytes, custodian: str, wanted: FragmentName) -> Challenge:
    """Read a challenge of `custodian` for the fragment that was asked for; raises `TamperingError` for another's."""
    fields = message_fields.read(payload, "the challenge")
    found = Challenge(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        nonce=fields.hexadecimal("nonce", NONCE),
        expires=fields.integer("expires", 0, MAX_TIME),
        fragment=fragment_name.take(fields),
    )
    fields.finish()
    if found.custodian != custodian:
        raise TamperingError("the challenge", "custodian", f"is of {found.custodian}, not of {custodian}")
    if found.fragment != wanted:
        raise TamperingError("the challenge", "", "is for another fragment than was asked for")
    return found


def release_request(request: ReleaseRequest) -> bytes:
    """Write a request; raises `TamperingError` for one that no custodian would read (too large a log)."""
    data = strict_json.serialise(
        {
            "version": VERSION,
            **request.fragment.to_json(),
            "nonce": request.nonce.hex(),
            "recipient": {"kem": request.kem, "key": strict_json.to_base64(request.key)},
            "evidence": evidence_to_json(request.evidence),
        }
    )
    parse_release_request(data)
    return data


def parse_release_request(data: bytes) -> ReleaseRequest:
    """Read a request; raises `TamperingError`."""
    fields = message_fields.read(data, "the machine's request")
    recipient = fields.table("recipient")
    found = ReleaseRequest(
        fragment=fragment_name.take(fields),
        nonce=fields.hexadecimal("nonce", NONCE),
        kem=recipient.choice("kem", KEMS),
        key=recipient.data("key", longest=_MAX_KEY),
        evidence=take_evidence(fields),
    )
    for fully_read in (recipient, fields):
        fully_read.finish()
    if not found.key:
        recipient.fail("key", "is empty")
    return found


def evidence_to_json(evidence: TpmEvidence) -> dict[str, Any]:
    """Return the JSON form of evidence."""
    return {
        "technology": "tpm",
        "attest": strict_json.to_base64(evidence.attest),
        "signature": strict_json.to_base64(evidence.signature),
        "pcrs": {str(number): value.hex() for number, value in evidence.pcrs},
        "log": strict_json.to_base64(evidence.log),
    }


def take_evidence(fields: Fields) -> TpmEvidence:
    """Take the field `evidence`."""
    table = fields.table("evidence")
    table.choice("technology", ("tpm",))
    found = TpmEvidence(
        attest=table.data("attest"),
        signature=table.data("signature"),
        pcrs=_pcrs(table.table("pcrs")),
        log=table.data("log", longest=_MAX_LOG),
    )
    table.finish()
    return found


def _pcrs(table: Fields) -> tuple[tuple[int, bytes], ...]:
    found = []
    for name in table.names():
        if not (name.isascii() and name.isdecimal()) or len(name) > 2 or str(int(name)) != name or int(name) >= _PCRS:
            table.fail("", f"has a name that is no PCR from 0 to {_PCRS - 1}")
        found.append((int(name), table.hexadecimal(name, *_DIGESTS)))
    return tuple(sorted(found))


def answer_payload(answer: Released | Waiting | Denied) -> bytes:
    """Write what a custodian signs as `ANSWER_TYPE`."""
    table: dict[str, object] = {"version": VERSION, "question": answer.question.hex(), "number": answer.number}
    if isinstance(answer, Released):
        enc, ct = strict_json.to_base64(answer.enc), strict_json.to_base64(answer.ciphertext)
        table |= {"answer": "released", "sealed": {"enc": enc, "ct": ct}}
    elif isinstance(answer, Waiting):
        table |= {"answer": "waiting", "retry_after": answer.retry_after}
    else:
        table |= {"answer": "denied", "check": answer.check, "expected": answer.expected, "actual": answer.actual}
    return strict_json.serialise(table)


def parse_answer(payload: bytes, question: bytes) -> Released | Waiting | Denied:
    """Read an answer to the question that was asked; raises `TamperingError` for one to another question."""
    fields = message_fields.read(payload, _WHAT)
    kind = fields.choice("answer", ("released", "waiting", "denied"))
    common: dict[str, Any] = {
        "question": fields.hexadecimal("question", QUESTION),
        "number": fields.integer("number", 0, 1 << 53),
    }
    found: Released | Waiting | Denied
    if kind == "released":
        sealed = fields.table("sealed")
        found = Released(**common, enc=sealed.data("enc", longest=2048), ciphertext=sealed.data("ct", longest=4096))
        sealed.finish()
    elif kind == "waiting":
        found = Waiting(**common, retry_after=fields.integer("retry_after", 1, MAX_RETRY))
    else:
        found = Denied(
            **common,
            check=fields.name("check", longest=64),
            expected=fields.text("expected", longest=_MAX_SHOWN),
            actual=fields.text("actual", longest=_MAX_SHOWN),
        )
    fields.finish()
    if found.question != question:
        raise TamperingError(_WHAT, "question", "is another one than was asked")
    return found


def answer_body(envelope: dict[str, Any], receipt: bytes = b"") -> bytes:
    """Write the whole answer: the signed envelope, and the receipt, which has signatures of its own."""
    return strict_json.serialise({"envelope": envelope, "receipt": strict_json.to_base64(receipt)})


def parse_answer_body(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Take an answer apart into the envelope, which is not verified yet, and the receipt; raises `TamperingError`."""
    fields = Fields.read(data, _WHAT, MAX_BODY, TamperingError)
    found = fields.raw_table("envelope"), fields.data("receipt", longest=_MAX_LOG)
    fields.finish()
    return found
