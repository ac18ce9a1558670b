# SPDX-License-Identifier: Apache-2.0
"""Session keys, HMACs and parameter encryption, against other implementations of the same standards."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss.internal import crypto as tss  # type: ignore[import-untyped]  # it has no type hints

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # cryptography before 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB

from keyquorum.errors import RefusedError
from keyquorum.secret import Secret
from keyquorum.tpm2 import session
from keyquorum.tpm2.public import StorageKey
from keyquorum.tpm2.session import Session
from keyquorum.tpm2.wire import Reader, sized, u32

SALT, OURS, THEIRS = b"s" * 32, b"c" * 32, b"t" * 32


@pytest.fixture
def salted() -> Iterator[Session]:
    with Secret.from_view(SALT) as salt:
        made = Session(0x03000000, salt, OURS, THEIRS)
    yield made
    made.wipe()


def session_key() -> bytes:
    return bytes(tss._kdfa(0x0B, SALT, b"ATH", THEIRS, OURS, 256))


@given(key=st.binary(min_size=1, max_size=64), label=st.binary(min_size=1, max_size=8), context=st.binary(max_size=64))
def test_kdfa_is_the_counter_mode_kdf(key: bytes, label: bytes, context: bytes) -> None:
    label = label.replace(b"\x00", b"x")
    with Secret.from_view(key) as secret, session.kdfa(secret, label, context) as derived:
        ours = bytes(derived.view)
    fixed = label + b"\x00" + context + (256).to_bytes(4, "big")
    kdf = KBKDFHMAC(
        algorithm=hashes.SHA256(), mode=Mode.CounterMode, length=32, rlen=4, llen=4,
        location=CounterLocation.BeforeFixed, label=None, context=None, fixed=fixed,
    )  # fmt: skip
    assert ours == kdf.derive(key)
    assert ours == tss._kdfa(0x0B, key, label, context, b"", 256)


def test_the_salt_reaches_an_elliptic_storage_key() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
    salt, encrypted = session.make_salt(StorageKey(name=b"", kind="ecc", unique=(x, y)))
    reader = Reader(encrypted, "point")
    point = Reader(reader.sized(200), "point")
    reader.finish()
    own_x, own_y = point.sized(32), point.sized(32)
    point.finish()
    peer = ec.EllipticCurvePublicNumbers(
        int.from_bytes(own_x, "big"), int.from_bytes(own_y, "big"), ec.SECP256R1()
    ).public_key()
    with salt:
        assert bytes(salt.view) == tss.kdfe(0x0B, private.exchange(ec.ECDH(), peer), b"SECRET\x00", own_x, x, 256)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_the_salt_reaches_an_rsa_storage_key(bits: int) -> None:
    private = rsa.generate_private_key(65537, bits)
    modulus = private.public_key().public_numbers().n.to_bytes(bits // 8, "big")
    salt, encrypted = session.make_salt(StorageKey(name=b"", kind="rsa", unique=(modulus,), exponent=65537))
    ciphertext = Reader(encrypted, "salt").sized(512)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"SECRET\x00")
    with salt:
        assert bytes(salt.view) == private.decrypt(ciphertext, oaep)


def test_two_salts_are_never_the_same() -> None:
    private = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256, "big")
    key = StorageKey(name=b"", kind="rsa", unique=(private,), exponent=65537)
    with session.make_salt(key)[0] as first, session.make_salt(key)[0] as second:
        assert not first.equals(second)


@pytest.mark.parametrize("auth", [b"", b"pin"])
def test_a_command_is_authorised_as_part_1_says(salted: Session, auth: bytes) -> None:
    with Secret.from_view(auth) as value:
        found = salted.authorize(0x15E, b"name", b"parameters", 0x40, value)
    command_hash = hashlib.sha256(u32(0x15E) + b"name" + b"parameters").digest()
    tag = hmac.digest(session_key() + auth, command_hash + OURS + THEIRS + b"\x40", "sha256")
    assert found == u32(0x03000000) + sized(OURS) + b"\x40" + sized(tag)


def answer(parameters: bytes, nonce: bytes, attributes: int, auth: bytes = b"") -> bytes:
    """Return what a TPM would add to its answer to TPM2_Unseal."""
    response_hash = hashlib.sha256(u32(0) + u32(0x15E) + parameters).digest()
    tag = hmac.digest(session_key() + auth, response_hash + nonce + OURS + bytes((attributes,)), "sha256")
    return sized(nonce) + bytes((attributes,)) + sized(tag)


@pytest.mark.parametrize("auth", [b"", b"pin"])
def test_an_answer_is_verified_and_then_decrypted(salted: Session, auth: bytes) -> None:
    nonce = b"n" * 32
    derived = tss._kdfa(0x0B, session_key() + auth, b"CFB", nonce, OURS, 256)
    encryptor = Cipher(algorithms.AES(derived[:16]), CFB(derived[16:])).encryptor()
    parameters = sized(encryptor.update(b"identity" * 4))
    with Secret.from_view(parameters) as given, Secret.from_view(auth) as value:
        salted.verify(0x15E, given, answer(parameters, nonce, 0x40, auth), 0x40, value)
        salted.cipher(given.address + 2, 32, value, encrypt=False)
        assert bytes(given.view[2:]) == b"identity" * 4


@pytest.mark.parametrize(
    ("parameters", "authorization"),
    [
        (b"altered!", answer(b"original", b"n" * 32, 0x40)),
        (b"original", answer(b"original", b"n" * 32, 0x40)[:-1] + b"\x00"),
        (b"original", answer(b"original", b"n" * 32, 0x00)),
        (b"original", answer(b"original", b"n" * 32, 0x40, b"another value")),
        (b"original", sized(b"n" * 32) + b"\x40" + sized(b"")),
        (b"original", sized(b"") + b"\x00" + sized(b"")),
        (b"original", b""),
        (b"original", answer(b"original", b"n" * 32, 0x40) + b"\x00"),
    ],
    ids=["parameters", "tag", "not encrypted", "value", "no tag", "password", "nothing", "longer"],
)
def test_an_altered_answer_is_refused(salted: Session, parameters: bytes, authorization: bytes) -> None:
    with Secret.from_view(parameters) as given, pytest.raises(RefusedError) as caught:
        salted.verify(0x15E, given, authorization, 0x40)
    assert caught.value.tampered


def test_an_answer_to_another_command_is_refused(salted: Session) -> None:
    with Secret.from_view(b"original") as given, pytest.raises(RefusedError):
        salted.verify(0x157, given, answer(b"original", b"n" * 32, 0x40), 0x40)


def test_a_replayed_answer_is_refused(salted: Session) -> None:
    recorded = answer(b"original", b"n" * 32, 0x40)
    salted.renew()
    with Secret.from_view(b"original") as given, pytest.raises(RefusedError):
        salted.verify(0x15E, given, recorded, 0x40)
