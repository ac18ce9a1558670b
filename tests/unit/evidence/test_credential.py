# SPDX-License-Identifier: Apache-2.0
"""Credentials opened as a TPM opens them, written a second time here; a real emulator does so in tests/devices."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from keyquorum.errors import TamperingError
from keyquorum.evidence import credential, tpm_public
from keyquorum.evidence.credential import Credential
from unit.evidence.tpm_maker import ECC_EK, EK, Key, private, sized

NAME = b"\x00\x0b" + hashlib.sha256(b"an attestation key").digest()
SECRET, SEED = bytes(range(32)), bytes(range(32, 64))


def recovered_seed(key: Key, made: Credential) -> bytes:
    own = private(key.kind, key.number)
    if isinstance(own, rsa.RSAPrivateKey):
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\x00")
        return own.decrypt(made.encrypted_secret, scheme)
    x, y = made.encrypted_secret[2:34], made.encrypted_secret[36:]
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
    shared = own.exchange(ec.ECDH(), point.public_key())
    mine = own.public_key().public_numbers().x.to_bytes(32, "big")
    return hashlib.sha256(b"\x00\x00\x00\x01" + shared + b"IDENTITY\x00" + x + mine).digest()


def activate(key: Key, made: Credential, name: bytes) -> bytes | None:
    """Return the secret, None when the integrity is wrong."""
    seed = recovered_seed(key, made)
    tag, encrypted = made.id_object[2:34], made.id_object[34:]
    integrity = hmac.digest(seed, b"\x00\x00\x00\x01INTEGRITY\x00" + (256).to_bytes(4, "big"), "sha256")
    if hmac.digest(integrity, encrypted + name, "sha256") != tag:
        return None
    storage = hmac.digest(seed, b"\x00\x00\x00\x01STORAGE\x00" + name + (128).to_bytes(4, "big"), "sha256")
    decryptor = Cipher(algorithms.AES(storage[:16]), CFB(bytes(16))).decryptor()
    plain = decryptor.update(encrypted) + decryptor.finalize()
    assert plain[:2] == b"\x00\x20"
    return plain[2:]


@pytest.mark.parametrize("key", [EK, ECC_EK], ids=["rsa", "ecc"])
def test_only_the_right_name_activates(key: Key) -> None:
    made = credential.make(tpm_public.parse(key.area, "EK"), NAME, SECRET, SEED)
    assert activate(key, made, NAME) == SECRET
    assert activate(key, made, NAME[:-1] + b"x") is None
    spoiled = Credential(
        id_object=made.id_object[:-1] + bytes((made.id_object[-1] ^ 1,)), encrypted_secret=made.encrypted_secret
    )
    assert activate(key, spoiled, NAME) is None
    assert SECRET not in made.id_object + made.encrypted_secret


def test_no_two_credentials_are_alike() -> None:
    for key in (EK, ECC_EK):
        area = tpm_public.parse(key.area, "EK")
        first, second = (credential.make(area, NAME, SECRET, SEED) for _ in range(2))
        assert first.encrypted_secret != second.encrypted_secret


def test_a_key_that_may_be_anywhere_gets_none() -> None:
    for attributes in (0x300B0, 0x200B2, 0x700B2, 0x50072):
        area = tpm_public.parse(Key(kind="rsa2048", number=1, attributes=attributes, scheme=0x10).area, "EK")
        with pytest.raises(TamperingError):
            credential.make(area, NAME, SECRET, SEED)
    assert sized(b"") == b"\x00\x00"


@pytest.mark.parametrize(("secret", "seed"), [(bytes(31), SEED), (SECRET, bytes(16)), (b"", SEED)])
def test_sizes_are_a_callers_duty(secret: bytes, seed: bytes) -> None:
    with pytest.raises(ValueError):
        credential.make(tpm_public.parse(EK.area, "EK"), NAME, secret, seed)
