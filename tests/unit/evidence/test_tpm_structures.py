# SPDX-License-Identifier: Apache-2.0
"""Public areas, signatures and quotes as bytes: what is read, what is refused and by which word."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import tpm_attest, tpm_public, tpm_signature
from keyquorum.evidence.tpm_wire import ECDSA, NULL, RSAPSS, RSASSA
from unit.evidence.tpm_maker import ECC_EK, EK, NONCE, RSA_KEY, Attest, Key, selection, sized, u16, u32

ATTEST = Attest(signer=b"\x00\x0b" + bytes(32), digest=bytes(32), selections=(selection("sha256", 0, 7, 23),))


@pytest.mark.parametrize(
    "key",
    [Key(), Key(kind="p384", hash="sha384"), Key(kind="p521", hash="sha512"), RSA_KEY, EK, ECC_EK, Key(scheme=NULL)],
    ids=lambda key: f"{key.kind}-{key.scheme:#x}",
)
def test_keys_are_read(key: Key) -> None:
    found = tpm_public.parse(key.area, "key")
    assert found.area == key.area
    assert found.name == b"\x00\x0b" + hashlib.sha256(key.area).digest()
    assert found.attributes == key.attributes
    assert found.scheme == (None if key.scheme == NULL else (key.scheme, key.hash))
    assert isinstance(found.key, rsa.RSAPublicKey if key.kind.startswith("rsa") else ec.EllipticCurvePublicKey)


def test_names_may_have_other_hashes() -> None:
    for number, name in ((0x0C, "sha384"), (0x0D, "sha512")):
        key = Key(name_algorithm=number)
        assert tpm_public.parse(key.area, "key").name == u16(number) + hashlib.new(name, key.area).digest()


def spoiled(area: bytes, at: int, value: bytes) -> bytes:
    return area[:at] + value + area[at + len(value) :]


ECC_AREA, RSA_AREA = Key().area, RSA_KEY.area
KEYS: dict[str, tuple[bytes, str]] = {
    "symmetric": (spoiled(ECC_AREA, 0, u16(0x25)), "type"),
    "keyed hash": (spoiled(ECC_AREA, 0, u16(0x08)), "type"),
    "sha1 name": (spoiled(ECC_AREA, 2, u16(0x04)), "hash"),
    "reserved attribute": (spoiled(ECC_AREA, 4, u32(0x50072 | 1 << 31)), "objectAttributes"),
    "sha1 scheme": (Key(hash="sha1").area, "hash"),
    "daa": (Key(scheme=0x1A).area, "scheme"),
    "oaep": (Key(kind="rsa2048", scheme=0x17).area, "scheme"),
    "rsa scheme of ecc": (Key(scheme=RSASSA).area, "scheme"),
    "ecc scheme of rsa": (Key(kind="rsa2048", scheme=ECDSA).area, "scheme"),
    "camellia": (Key(cipher=u16(0x26) + u16(128) + u16(0x43)).area, "symmetric"),
    "cbc": (Key(cipher=u16(6) + u16(128) + u16(0x42)).area, "symmetric"),
    "small rsa": (Key(kind="rsa1024", scheme=RSASSA).area, "unique"),
    "bits lie": (spoiled(RSA_AREA, 16, u16(3072)), "unique"),
    "even modulus": (RSA_AREA[:-1] + bytes((RSA_AREA[-1] & 0xFE,)), "unique"),
    "exponent 3": (Key(kind="rsa2048", scheme=RSASSA, exponent=3).area, "exponent"),
    "even exponent": (Key(kind="rsa2048", scheme=RSASSA, exponent=65538).area, "exponent"),
    "other curve": (spoiled(ECC_AREA, 16, u16(0x10)), "curveID"),
    "kdf": (spoiled(ECC_AREA, 18, u16(0x22)), "kdf"),
    "off the curve": (ECC_AREA[:-1] + bytes((ECC_AREA[-1] ^ 1,)), "unique"),
}


@pytest.mark.parametrize("case", KEYS)
def test_other_keys_are_refused(case: str) -> None:
    area, where = KEYS[case]
    with pytest.raises(TamperingError) as caught:
        tpm_public.parse(area, "key")
    assert caught.value.where == where


@pytest.mark.parametrize("area", [ECC_AREA, RSA_AREA, EK.area], ids=["ecc", "rsa", "ek"])
def test_a_key_is_read_whole_or_not(area: bytes) -> None:
    for size in range(len(area)):
        with pytest.raises(TamperingError):
            tpm_public.parse(area[:size], "key")
    for more in (area + b"\x00", area + bytes(2000)):
        with pytest.raises(TamperingError):
            tpm_public.parse(more, "key")


def test_qualified_names() -> None:
    primary, child = b"\x00\x0b" + b"p" * 32, b"\x00\x0c" + b"c" * 48
    first = b"\x00\x0b" + hashlib.sha256(b"\x40\x00\x00\x0b" + primary).digest()
    assert tpm_public.qualified_name((primary,)) == first
    assert tpm_public.qualified_name((primary, child)) == b"\x00\x0c" + hashlib.sha384(first + child).digest()
    assert tpm_public.qualified_name((primary,), 0x40000001) != first
    with pytest.raises(TamperingError):
        tpm_public.qualified_name((b"\x00\x04" + bytes(20),))


def test_attributes_have_words() -> None:
    assert tpm_public.attribute_text(0x50072) == "fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign"
    assert tpm_public.attribute_text(0) == "none"


def test_a_quote_is_read() -> None:
    found = tpm_attest.parse(ATTEST.data, "quote")
    assert (found.extra_data, found.firmware) == (NONCE, 0x0001000200030004)
    assert found.selections == ((0x0B, (0, 7, 23)),)
    assert (found.clock.reset_count, found.clock.restart_count, found.clock.clock) == (5, 1, 1000)
    assert tpm_attest.selection_text(found.selections[0]) == "sha256:0,7,23"
    assert tpm_attest.selection_text((0x99, ())) == "algorithm 0x0099:none"


ATTESTS: dict[str, tuple[dict[str, Any], str]] = {
    "magic": ({"magic": 0}, "magic"),
    "time": ({"kind": 0x8019}, "type"),
    "many selections": ({"selections": (selection("sha256", 0),) * 17}, ""),
    "five bytes": ({"selections": (b"\x00\x0b\x05" + bytes(5),)}, ""),
    "long digest": ({"digest": bytes(65)}, ""),
    "long name": ({"signer": bytes(67)}, ""),
}


@pytest.mark.parametrize("case", ATTESTS)
def test_other_attestations_are_refused(case: str) -> None:
    changes, where = ATTESTS[case]
    parts = {"signer": ATTEST.signer, "digest": ATTEST.digest, "selections": ATTEST.selections}
    with pytest.raises(TamperingError) as caught:
        tpm_attest.parse(Attest(**(parts | changes)).data, "quote")
    assert caught.value.where == where or caught.value.where.startswith("byte ")


def test_a_quote_is_read_whole_or_not() -> None:
    for size in range(len(ATTEST.data)):
        with pytest.raises(TamperingError):
            tpm_attest.parse(ATTEST.data[:size], "quote")
    for more in (ATTEST.data + b"\x00", ATTEST.data + bytes(3000)):
        with pytest.raises(TamperingError):
            tpm_attest.parse(more, "quote")


def test_yes_is_one() -> None:
    at = ATTEST.data.index(NONCE) + 32 + 16
    assert ATTEST.data[at] == 1
    with pytest.raises(TamperingError):
        tpm_attest.parse(spoiled(ATTEST.data, at, b"\x02"), "quote")


SIGNERS = (Key(), Key(kind="p384", hash="sha384"), RSA_KEY, Key(kind="rsa2048", scheme=RSAPSS))


@pytest.mark.parametrize("key", SIGNERS, ids=lambda key: f"{key.kind}-{key.scheme:#x}")
def test_a_signature_is_the_keys_and_the_messages(key: Key) -> None:
    signature, area = tpm_signature.parse(key.sign(b"message"), "signature"), tpm_public.parse(key.area, "key")
    tpm_signature.verify(signature, area, b"message", "signature")
    others = [other for other in SIGNERS if other.kind != key.kind]
    for wrong_key, message in (
        (area, b"messages"),
        *((tpm_public.parse(other.area, "key"), b"message") for other in others),
    ):
        with pytest.raises(TamperingError):
            tpm_signature.verify(signature, wrong_key, message, "signature")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (u16(0x05) + u16(0x0B) + bytes(32), "sigAlg"),
        (u16(0x10), "sigAlg"),
        (u16(0x1A) + u16(0x0B) + sized(bytes(32)) * 2, "sigAlg"),
        (u16(0x14) + u16(0x04) + sized(bytes(256)), "hash"),
        (u16(0x14) + u16(0x0B) + sized(bytes(513)), "byte 6"),
        (u16(0x18) + u16(0x0B) + sized(bytes(67)) + sized(bytes(32)), "byte 6"),
        (u16(0x18) + u16(0x0B) + sized(bytes(32)) * 2 + b"\x00", "byte 72"),
        (bytes(1025), ""),
    ],
    ids=["hmac", "null", "daa", "sha1", "long rsa", "long r", "trailing", "large"],
)
def test_other_signatures_are_refused(data: bytes, where: str) -> None:
    with pytest.raises(TamperingError) as caught:
        tpm_signature.parse(data, "signature")
    assert caught.value.where == where


@pytest.mark.parametrize("r", [0, 1, (1 << 256) - 1])
def test_numbers_that_are_no_signature(r: int) -> None:
    data = u16(ECDSA) + u16(0x0B) + sized(r.to_bytes(32, "big")) + sized(bytes(31) + b"\x01")
    with pytest.raises(TamperingError):
        tpm_signature.verify(
            tpm_signature.parse(data, "signature"), tpm_public.parse(Key().area, "key"), b"m", "signature"
        )


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", ECC_AREA[:18], RSA_AREA[:20], ATTEST.data[:50]]))
def test_garbage_ends_in_our_error_or_in_a_value(data: bytes, start: bytes) -> None:
    for parse in (tpm_public.parse, tpm_attest.parse, tpm_signature.parse):
        try:
            parse(start + data, "garbage")
        except TamperingError:
            continue
