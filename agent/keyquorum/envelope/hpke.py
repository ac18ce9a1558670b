# SPDX-License-Identifier: Apache-2.0
"""Opening HPKE (RFC 9180, base mode, single shot) with the private key in protected memory (docs/fragment.md §3).

The boot opens with this file over libsodium and libcrypto; enrolment seals with `cryptography` (`envelope.sealing`).
The suites are DHKEM(X25519) and X-Wing (draft-connolly-cfrg-xwing-kem, KEM id 0x647a), with HKDF-SHA256 and
ChaCha20-Poly1305. A recipient's private key is a 32-byte seed in both; that is what a holder keeps.
"""

from __future__ import annotations

from keyquorum.errors import RefusedError
from keyquorum.native import crypto, sodium
from keyquorum.secret import Identity, Secret, Share

X25519 = "x25519"
X_WING = "x-wing"

_KEM_IDS = {X25519: 0x0020, X_WING: 0x647A}
_KDF_ID, _AEAD_ID = 0x0001, 0x0003  # HKDF-SHA256, ChaCha20-Poly1305
ENC_SIZES = {X25519: 32, X_WING: 1088 + 32}
_XWING_LABEL = b"\\.//^\\"


def open_sealed(kem: str, identity: Identity, enc: bytes, ciphertext: bytes, info: bytes) -> Share:
    """Open `ciphertext`, sealed to the identity's public key with this `info`.

    Raises `RefusedError` when it was not.
    """
    if kem not in _KEM_IDS or len(enc) != ENC_SIZES[kem]:
        raise RefusedError("the fragment's seal has an unknown kind or a wrong size", tampered=True)
    with (
        _x_wing(identity, enc) if kem == X_WING else _dhkem(identity, enc) as shared,
        _schedule(kem, shared, info) as keys,
        keys.part(0, 32) as key,
        keys.part(32, 12) as nonce,
    ):
        plain = sodium.open_chacha20poly1305(key, nonce, ciphertext, b"")
    if plain is None:
        raise RefusedError("the fragment was sealed to another key, or altered", tampered=True)
    with plain:
        return Share.from_view(plain.view)


def _schedule(kem: str, shared: Secret, info: bytes) -> Secret:
    """Key schedule (RFC 9180 §5.1), mode base, no PSK: the AEAD key followed by the nonce of the first message."""
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (_KEM_IDS[kem], _KDF_ID, _AEAD_ID))
    with (
        _labeled_extract(suite, b"", b"psk_id_hash", b"") as psk_id,
        _labeled_extract(suite, b"", b"info_hash", info) as info_hash,
    ):
        context = b"\x00" + bytes(psk_id.view) + bytes(info_hash.view)
    with (
        _labeled_extract(suite, shared, b"secret", b"") as secret,
        _labeled_expand(suite, secret, b"key", context, 32) as key,
        _labeled_expand(suite, secret, b"base_nonce", context, 12) as nonce,
    ):
        keys = Secret(44)
        keys.view[:32], keys.view[32:] = key.view, nonce.view
        return keys


def _labeled_extract(suite: bytes, salt: Secret | bytes, label: bytes, material: Secret | bytes) -> Secret:
    """LabeledExtract (RFC 9180 §4)."""
    if isinstance(salt, bytes):
        return sodium.hkdf_extract(salt, b"HPKE-v1" + suite + label, material)
    mac = sodium.Hmac(salt)
    mac.add_public(b"HPKE-v1" + suite + label)
    if isinstance(material, Secret):
        mac.add(material)
    else:
        mac.add_public(material)
    return mac.finish()


def _labeled_expand(suite: bytes, secret: Secret, label: bytes, context: bytes, size: int) -> Secret:
    """LabeledExpand (RFC 9180 §4)."""
    return sodium.hkdf_expand(secret, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, size)


def _dhkem(identity: Identity, enc: bytes) -> Secret:
    """Decap of DHKEM(X25519, HKDF-SHA256) (RFC 9180 §4.1)."""
    shared = sodium.x25519(identity, enc)
    if shared is None:
        raise RefusedError("the fragment's seal holds a point of small order", tampered=True)
    suite = b"KEM" + _KEM_IDS[X25519].to_bytes(2, "big")
    context = enc + sodium.x25519_public(identity)
    with shared, _labeled_extract(suite, b"", b"eae_prk", shared) as extracted:
        return _labeled_expand(suite, extracted, b"shared_secret", context, 32)


def _x_wing(identity: Identity, enc: bytes) -> Secret:
    """Decapsulate of X-Wing (draft-connolly-cfrg-xwing-kem §5.4)."""
    with (
        crypto.digest(b"SHAKE256", 96, identity) as expanded,
        expanded.part(0, 64) as ml_kem_seed,
        expanded.part(64, 32) as x25519_private,
        crypto.ml_kem_768_decapsulate(ml_kem_seed, enc[:1088]) as ml_kem_shared,
    ):
        x25519_shared = sodium.x25519(x25519_private, enc[1088:])
        if x25519_shared is None:
            raise RefusedError("the fragment's seal holds a point of small order", tampered=True)
        with x25519_shared:
            public = sodium.x25519_public(x25519_private)
            return crypto.digest(b"SHA3-256", 32, ml_kem_shared, x25519_shared, enc[1088:], public, _XWING_LABEL)
