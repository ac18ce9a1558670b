# SPDX-License-Identifier: Apache-2.0
"""Public keys as tokens show them, against the encoder of cryptography."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.model import pkcs11_key
from keyquorum.model.pkcs11_key import P256, P384

_PRIMES = (2**1279 - 1, 2**2203 - 1)


def spki(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(("curve", "other"), [(P256, ec.SECP256R1()), (P384, ec.SECP384R1())])
def test_ec(curve: pkcs11_key.Curve, other: ec.EllipticCurve) -> None:
    public = ec.generate_private_key(other).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert pkcs11_key.ec_public_key(curve, point) == spki(public)
    assert pkcs11_key.fingerprint(spki(public)) == hashlib.sha256(spki(public)).hexdigest()
    assert pkcs11_key.curve_of(curve.oid) is curve
    assert pkcs11_key.point_of(point, curve) == point
    assert pkcs11_key.point_of(pkcs11_key.octet_string(point), curve) == point


def test_points_and_curves_that_are_none() -> None:
    point = b"\x04" + bytes(64)
    for value in (
        None,
        b"",
        point[:-1],
        point + b"\x00",
        b"\x02" + bytes(64),
        b"\x03" + bytes(32),
        b"\x04\x40" + point,
    ):
        assert pkcs11_key.point_of(value, P256) is None
    for parameters in (None, b"", P256.oid[:-1], bytes.fromhex("06052b81040023")):
        assert pkcs11_key.curve_of(parameters) is None


@given(st.integers(min_value=2**1023, max_value=2**4096), st.sampled_from([3, 17, 65537, 2**31 + 1]), st.integers(0, 3))
def test_rsa(modulus: int, exponent: int, zeros: int) -> None:
    modulus |= 1
    expected = spki(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    raw = bytes(zeros) + modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    assert pkcs11_key.rsa_public_key(raw, exponent.to_bytes(4, "big")) == expected
    assert pkcs11_key.rsa_bits(raw) == modulus.bit_length()
