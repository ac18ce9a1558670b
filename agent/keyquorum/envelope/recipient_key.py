# SPDX-License-Identifier: Apache-2.0
"""HPKE public keys as they travel: SubjectPublicKeyInfo in DER (docs/custodian.md §3). Not for the boot.

The encodings have one length each, so a key is its fixed beginning and its bytes; every other spelling is refused.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import TamperingError

_ML_KEM = 1184
_X25519 = 32
_BEGINNINGS = {
    X25519: bytes.fromhex("302a300506032b656e032100"),  # RFC 8410
    X_WING: bytes.fromhex("308204d4300d060b2b0601040183e62d81c87a038204c100"),  # 1.3.6.1.4.1.62253.25722
}
_SIZES = {X25519: _X25519, X_WING: _ML_KEM + _X25519}
_WHAT = "the recipient's key"
_HIGHEST_BIT = 1 << 255  # which X25519 does not look at (RFC 7748 §5)
_P = (1 << 255) - 19
# The u-coordinates of small order, on the curve and its twist, with those that are written in another way: with them
# every exchange gives zero (RFC 7748 §6.1). To compare costs nothing beside an exchange that would show it.
_SMALL = frozenset(
    (
        *(0, 1, _P - 1, _P, _P + 1),
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)


def encode(recipient: Recipient) -> bytes:
    """Return a key's SubjectPublicKeyInfo."""
    return _BEGINNINGS[recipient.kem] + recipient.raw


def parse(kem: str, encoded: bytes) -> Recipient:
    """Return whom to seal to; raises `TamperingError` for what is no key of this kind."""
    beginning = _BEGINNINGS.get(kem, b"")
    raw = encoded[len(beginning) :]
    if not beginning or not encoded.startswith(beginning) or len(raw) != _SIZES[kem]:
        raise TamperingError(_WHAT, "key", f"is no SubjectPublicKeyInfo of {kem}")
    try:
        point = x25519.X25519PublicKey.from_public_bytes(raw[-_X25519:])
        public = _public(kem, raw, point)
    except ValueError:
        public = None
    if public is None or int.from_bytes(raw[-_X25519:], "little") % _HIGHEST_BIT in _SMALL:
        raise TamperingError(_WHAT, "key", f"is no key of {kem} that can be sealed to")
    return Recipient(kem=kem, public=public, raw=raw)


def _public(
    kem: str, raw: bytes, point: x25519.X25519PublicKey
) -> x25519.X25519PublicKey | pyca.MLKEM768X25519PublicKey:
    if kem == X25519:
        return point
    return pyca.MLKEM768X25519PublicKey(mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_ML_KEM]), point)
