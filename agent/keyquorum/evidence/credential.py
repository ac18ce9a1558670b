# SPDX-License-Identifier: Apache-2.0
"""The verifier's side of MakeCredential and ActivateCredential (TPM 2.0 Part 1 §24, Annexes B and C).

A secret is encrypted such that only the TPM with the private part of an endorsement key can have it, and only if it
also holds the key with a given Name. Whoever gives the secret back has both keys in one TPM.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from keyquorum.errors import TamperingError
from keyquorum.evidence import tpm_public
from keyquorum.evidence.tpm_wire import SIZES

if TYPE_CHECKING:
    from keyquorum.evidence.tpm_public import PublicArea

SECRET_SIZE = 32
_LABEL = b"IDENTITY\x00"
_ALGORITHMS: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What TPM2_ActivateCredential takes: the contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    id_object: bytes
    encrypted_secret: bytes


def seed_size(ek: PublicArea) -> int:
    """Return how many random bytes `make` needs for an RSA key."""
    return SIZES[ek.hash]


def make(ek: PublicArea, name: bytes, secret: bytes, seed: bytes) -> Credential:
    """Encrypt `secret` to `ek` for the key with the Name `name`.

    `secret` (32 bytes) and `seed` (`seed_size`) are random and used once; an ECC key agrees on a seed of its own and
    leaves `seed` unused. The padding and the one-time key draw from the library's randomness. Raises `TamperingError`
    for a key that is no endorsement key: it may not be a TPM's at all.
    """
    if ek.lacks(tpm_public.ENDORSEMENT_KEY) or not ek.cipher:
        raise TamperingError("the endorsement key", "objectAttributes", tpm_public.attribute_text(ek.attributes))
    if len(secret) != SECRET_SIZE or len(seed) != seed_size(ek):
        raise ValueError(f"a secret of {len(secret)} bytes with a seed of {len(seed)}")
    if isinstance(ek.key, rsa.RSAPublicKey):
        algorithm = _ALGORITHMS[ek.hash]
        scheme = padding.OAEP(padding.MGF1(algorithm), algorithm, _LABEL)
        encrypted = ek.key.encrypt(seed, scheme)
    else:
        seed, encrypted = _agree(ek.key, ek.hash)
    return Credential(id_object=_wrap(ek, name, secret, seed), encrypted_secret=encrypted)


def _agree(key: ec.EllipticCurvePublicKey, algorithm: str) -> tuple[bytes, bytes]:
    """Agree on a seed with an ECC key; return it and the point that tells the TPM."""
    own = ec.generate_private_key(key.curve)
    shared = own.exchange(ec.ECDH(), key)
    size = (key.curve.key_size + 7) // 8
    mine, theirs = own.public_key().public_numbers(), key.public_numbers()
    x, y = mine.x.to_bytes(size, "big"), mine.y.to_bytes(size, "big")
    seed = kdfe(algorithm, shared, _LABEL, x, theirs.x.to_bytes(size, "big"))
    return seed, _sized(x) + _sized(y)


def _wrap(ek: PublicArea, name: bytes, secret: bytes, seed: bytes) -> bytes:
    """Encrypt and authenticate the secret under keys from the seed, the Name among what is authenticated."""
    key = kdfa(ek.hash, seed, b"STORAGE\x00", name, ek.cipher)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity = kdfa(ek.hash, seed, b"INTEGRITY\x00", b"", 8 * SIZES[ek.hash])
    return _sized(hmac.digest(integrity, identity + name, ek.hash)) + identity


def kdfa(algorithm: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return `bits` of KDFa (Part 1 §11.4.10.2): SP 800-108 in counter mode with HMAC; at most one block."""
    made = hmac.digest(key, b"\x00\x00\x00\x01" + label + context + bits.to_bytes(4, "big"), algorithm)
    return made[: bits // 8]


def kdfe(algorithm: str, shared: bytes, label: bytes, one: bytes, other: bytes) -> bytes:
    """Return KDFe's first block, as long as the hash (Part 1 §11.4.10.3)."""
    return hashlib.new(algorithm, b"\x00\x00\x00\x01" + shared + label + one + other).digest()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
