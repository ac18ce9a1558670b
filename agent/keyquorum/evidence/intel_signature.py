# SPDX-License-Identifier: Apache-2.0
"""ECDSA on P-256 with SHA-256 as Intel writes it: numbers of 32 bytes in big-endian, one after the other."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyquorum.errors import TamperingError

_HALF = 32
_ALGORITHM = ec.ECDSA(hashes.SHA256())


def public_key(point: bytes, what: str) -> ec.EllipticCurvePublicKey:
    """Return the key whose point is x ‖ y; raises `TamperingError` if it is none of P-256."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError:
        raise TamperingError(what, "", "is no point of P-256") from None


def verify(key: object, signature: bytes, message: bytes, what: str) -> None:
    """Raise `TamperingError` unless a P-256 key made the signature r ‖ s over the message."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TamperingError(what, "", "is not by a key of P-256")
    if len(signature) != 2 * _HALF:
        raise TamperingError(what, "", f"has {len(signature)} bytes, not {2 * _HALF}")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
    try:
        key.verify(encode_dss_signature(r, s), message, _ALGORITHM)
    except InvalidSignature:
        raise TamperingError(what, "", "does not match") from None
