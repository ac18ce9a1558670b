# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a document of Nitro Enclaves: policy, verification, reference values (§3 of the page).

Pure: roots, the instant and what the document must carry are arguments (docs/attestation-nitro.md §3).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    certificate,
    certificates,
    chain_checks,
    nitro_document,
    nitro_policy,
    signed_policy,
    tpm_checks,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.tpm_quote import MIN_NONCE

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.nitro_document import Document, Envelope
    from keyquorum.evidence.nitro_policy import NitroReference
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy

TECHNOLOGY = "nitro"
AWS_ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"  # CN=aws.nitro-enclaves, to 2049
_NSM = "AWS Nitro Enclaves attestation process §3.2"
_COSE = "RFC 9052 §4.2 COSE_Sign1"
_X509 = "RFC 5280 §6"
_OURS = "docs/attestation-nitro.md"
REFERENCES = {
    **{name: place for name, place in tpm_checks.REFERENCES.items() if name.startswith("policy.")},
    "nitro.document.cbor": f"{_COSE}; RFC 8949 §4.2.1",
    "nitro.document.header": f"{_COSE}; RFC 9053 §2.1",
    "nitro.document.fields": _NSM,
    "nitro.chain.certificates": _NSM,
    "nitro.chain.root": f"{_OURS} §3",
    "nitro.chain.path": _X509,
    "nitro.chain.leaf": f"{_X509}; {_NSM}",
    "nitro.chain.validity": _X509,
    "nitro.signature": _COSE,
    "nitro.nonce-size": "docs/attestation.md §4",
    "nitro.nonce": _NSM,
    "nitro.user-data": _NSM,
    "nitro.public-key": _NSM,
    "nitro.age": f"{_OURS} §4",
    "nitro.debug": _NSM,
    "nitro.pcrs": f"{_OURS} §4",
}
_ZERO = bytes(nitro_document.PCR_SIZE)
_CHAIN_WHAT = "the certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroChallenge:
    """What the verifier asked for; `user_data` and `public_key` None: any. `roots`: SHA-256 of the DER, in hex."""

    nonce: bytes
    user_data: bytes | None = None
    public_key: bytes | None = None
    min_nonce: int = MIN_NONCE
    roots: frozenset[str] = frozenset({AWS_ROOT})


def appraise(data: bytes, challenge: NitroChallenge, policy: SignedPolicy, now: int) -> AttestationResult:
    """Return what a document is worth at the instant `now` (seconds since 1970); never raises for a bad one."""
    checks = Checks(REFERENCES)
    reference = signed_policy.accept(policy, nitro_policy.REFERENCE_TYPE, nitro_policy.parse, now, checks)
    if reference is not None:
        document = verify(data, challenge, now, checks)
        if document is not None:
            _judge(document, reference, now, checks)
    return checks.conclude(TECHNOLOGY, now, frozenset(REFERENCES))


def verify(data: bytes, challenge: NitroChallenge, now: int, checks: Checks) -> Document | None:
    """Return what AWS's root vouches for, or None; every step is noted in `checks`."""
    envelope = _open(data, checks)
    if envelope is None:
        return None
    document = _parse(envelope, checks)
    if document is None:
        return None
    path = _load(document, checks)
    if path is None:
        return None
    _check_chain(path, challenge.roots, now, checks)
    check_signature(path[0], envelope, checks)
    _check_binding(document, challenge, checks)
    return None if checks.failed else document


def _open(data: bytes, checks: Checks) -> Envelope | None:
    try:
        envelope = nitro_document.open_envelope(data)
    except TamperingError as problem:
        header = problem.where == "header"
        name, expected = ("header", "ES384 and nothing else") if header else ("cbor", "a COSE_Sign1, strictly encoded")
        checks.refuse(f"nitro.document.{name}", problem, expected)
        return None
    checks.demand("nitro.document.cbor", expected="a COSE_Sign1", actual=f"{len(data)} bytes", holds=True)
    checks.demand("nitro.document.header", expected="ES384", actual="ES384", holds=True)
    return envelope


def _parse(envelope: Envelope, checks: Checks) -> Document | None:
    try:
        document = nitro_document.parse(envelope.payload)
    except TamperingError as problem:
        checks.refuse("nitro.document.fields", problem, "every field within its bounds, and no other")
        return None
    checks.demand("nitro.document.fields", expected="within their bounds", actual="within their bounds", holds=True)
    return document


def _load(document: Document, checks: Checks) -> tuple[Certificate, ...] | None:
    """Return the certificates, leaf first, root last."""
    try:
        path = tuple(_certificate(data) for data in (document.certificate, *reversed(document.bundle)))
    except TamperingError as problem:
        checks.refuse("nitro.chain.certificates", problem, "certificates in DER")
        return None
    checks.demand("nitro.chain.certificates", expected="in DER", actual=f"{len(path)} in DER", holds=True)
    return path


def _certificate(data: bytes) -> Certificate:
    found = certificate.load(data, "a certificate")
    if found.der != data:
        raise TamperingError("a certificate", "", "has something after its end")
    return found


def _check_chain(path: tuple[Certificate, ...], roots: frozenset[str], now: int, checks: Checks) -> None:
    """The root in the document is only believed because it is the pinned one."""
    leaf, *between, root = path if len(path) > 1 else (path[0], path[0])
    found = root.sha256
    pinned = found in roots
    expected = ", ".join(sorted(roots)) or "no root"
    checks.demand("nitro.chain.root", expected=expected, actual=found, holds=pinned)
    expected = "each by the next, in this order"
    try:
        climbed = certificates.chain(leaf, tuple(between), (root,), _CHAIN_WHAT)
    except TamperingError as problem:
        checks.refuse("nitro.chain.path", problem, expected)
    else:
        shown = f"{len(climbed)} of {len(path)} certificates"
        holds = checks.demand("nitro.chain.path", expected=expected, actual=shown, holds=climbed == path)
        if holds and pinned:
            checks.chain = tuple(one.link for one in path)
    problems = _leaf_problems(leaf)
    checks.demand(
        "nitro.chain.leaf",
        expected="P-384, for digital signatures, no authority",
        actual=", ".join(problems) or "as expected",
        holds=not problems,
    )
    chain_checks.demand_validity("nitro.chain.validity", path, now, _CHAIN_WHAT, checks)


def _leaf_problems(leaf: Certificate) -> list[str]:
    problems, key = [], leaf.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        problems.append("another kind of key")
    usage = leaf.usage
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        problems.append("not for digital signatures only")
    if leaf.constraints is not None and leaf.constraints.ca:
        problems.append("an authority's")
    return problems


def check_signature(leaf: Certificate, envelope: Envelope, checks: Checks) -> None:
    """Note whether the key of a certificate signed the document."""
    expected, key = "by the key of the document's certificate", leaf.key
    middle = len(envelope.signature) // 2
    numbers = [int.from_bytes(part, "big") for part in (envelope.signature[:middle], envelope.signature[middle:])]
    holds = isinstance(key, ec.EllipticCurvePublicKey)
    if isinstance(key, ec.EllipticCurvePublicKey):
        try:
            key.verify(encode_dss_signature(*numbers), envelope.signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            holds = False
    checks.demand("nitro.signature", expected=expected, actual=expected if holds else "not by it", holds=holds)


def _check_binding(document: Document, challenge: NitroChallenge, checks: Checks) -> None:
    size = len(challenge.nonce)
    checks.demand(
        "nitro.nonce-size",
        expected=f"a nonce of at least {challenge.min_nonce} bytes",
        actual=f"{size} bytes",
        holds=size >= challenge.min_nonce,
    )
    wanted = {
        "nonce": (challenge.nonce or None, document.nonce),
        "user-data": (challenge.user_data, document.user_data),
        "public-key": (challenge.public_key, document.public_key),
    }
    for word, (asked, found) in wanted.items():
        shown = "none" if found is None else found.hex() or "empty"
        if asked is None:
            checks.waive(f"nitro.{word}", "the caller asked for none", shown)
            continue
        holds = found is not None and hmac.compare_digest(asked, found)
        checks.demand(f"nitro.{word}", expected=asked.hex() or "empty", actual=shown, holds=holds)


def _judge(document: Document, reference: NitroReference, now: int, checks: Checks) -> None:
    age = now - document.timestamp / 1000
    checks.demand(
        "nitro.age",
        expected=f"at most {reference.max_age} s old, at most {reference.max_skew} s of the future",
        actual=f"{age:.3f} s old",
        holds=-reference.max_skew <= age <= reference.max_age,
    )
    zero = [number for number in (0, 1, 2) if document.pcrs.get(number, _ZERO) == _ZERO]
    shown = f"PCR {', '.join(map(str, zero))} zero" if zero else "none of them"
    if reference.debug:
        checks.waive("nitro.debug", "the policy takes enclaves that are debugged", shown)
    else:
        checks.demand("nitro.debug", expected="PCR 0, 1 and 2 not zero", actual=shown, holds=not zero)
    wrong = []
    for number, listed in sorted(reference.pcrs.items()):
        value = document.pcrs.get(number)
        if listed is not None and value not in listed:
            wrong.append(f"PCR {number} is {value.hex() if value else 'not there'}")
    checks.demand(
        "nitro.pcrs",
        expected=f"values of the policy {reference.name}, serial {reference.serial}",
        actual="; ".join(wrong) or "values of the policy",
        holds=not wrong,
    )
    checks.claim("nitro.module", document.module)
    checks.claim("nitro.timestamp", str(document.timestamp))
    for number, value in sorted(document.pcrs.items()):
        if number in reference.pcrs or value != _ZERO:
            checks.claim(f"nitro.pcr{number}", value.hex())
