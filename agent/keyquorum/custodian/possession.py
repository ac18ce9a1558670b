# SPDX-License-Identifier: Apache-2.0
"""Whether whoever enrols a TLS key has it, and did not only read it somewhere (docs/custodian.md §11.2). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from keyquorum.custodian.authority import client_key
from keyquorum.evidence.result import Check, Outcome
from keyquorum.model.enrolment_messages import possession_message

if TYPE_CHECKING:
    from keyquorum.model.enrolment_messages import Enrolment

_NAME, _SPEC = "machine.tls-key", "docs/custodian.md §11.2"


def check(request: Enrolment, payload: bytes, answer: bytes, signature: bytes) -> Check:
    """Verify the TLS key's signature over an enrolment (its signed payload) and the answer to its credential.

    Raises `TamperingError` for a key that no certificate is issued for.
    """
    if signed(client_key(request.tls_key), possession_message(payload, answer), signature):
        return _check("signed", Outcome.PASSED)
    return _check("a signature that does not match" if signature else "no signature", Outcome.FAILED)


def signed(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    """Say whether a TLS key signed a message; ECDSA is with the hash of the curve's size."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            digest = hashes.SHA384() if isinstance(key.curve, ec.SECP384R1) else hashes.SHA256()
            key.verify(signature, message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _check(actual: str, outcome: Outcome) -> Check:
    return Check(name=_NAME, spec=_SPEC, expected="signed by the TLS key", actual=actual, outcome=outcome)
