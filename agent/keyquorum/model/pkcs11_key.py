# SPDX-License-Identifier: Apache-2.0
"""Public keys as tokens show them, and their fingerprints (docs/holders-pkcs11.md §3).

The fingerprint is SHA-256 over the DER of SubjectPublicKeyInfo (RFC 5280), as
`openssl pkey -pubin -outform DER | sha256sum` gives it.
"""

from __future__ import annotations

from keyquorum.native import sodium
from keyquorum.record import Record

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 16384
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption, NULL
_EC_ALGORITHM = bytes.fromhex("06072a8648ce3d0201")  # id-ecPublicKey
_UNCOMPRESSED = 0x04


class Curve(Record):
    """An elliptic curve: `name` as NIST calls it, `oid` as CKA_EC_PARAMS has it, `size` of a coordinate in bytes."""

    name: str
    oid: bytes
    size: int


P256 = Curve(name="P-256", oid=bytes.fromhex("06082a8648ce3d030107"), size=32)
P384 = Curve(name="P-384", oid=bytes.fromhex("06052b81040022"), size=48)
CURVES = (P256, P384)


def curve_of(parameters: bytes | None) -> Curve | None:
    """Return the curve that CKA_EC_PARAMS names; None for others."""
    return next((curve for curve in CURVES if curve.oid == parameters), None)


def point_of(value: bytes | None, curve: Curve) -> bytes | None:
    """Return the point 04 ‖ x ‖ y in CKA_EC_POINT, which is a DER OCTET STRING, or bare on some tokens."""
    size = 1 + 2 * curve.size
    if value and len(value) == size + 2 and value[:2] == bytes((0x04, size)):
        value = value[2:]
    return value if value and len(value) == size and value[0] == _UNCOMPRESSED else None


def octet_string(point: bytes) -> bytes:
    """Wrap a point in a DER OCTET STRING, for modules that want it so."""
    return _der(0x04, point)


def ec_public_key(curve: Curve, point: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a point."""
    return _der(0x30, _der(0x30, _EC_ALGORITHM + curve.oid) + _der(0x03, b"\x00" + point))


def rsa_public_key(modulus: bytes, exponent: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of an RSA key, its numbers big-endian as CKA_MODULUS has them."""
    key = _der(0x30, _integer(modulus) + _integer(exponent))
    return _der(0x30, _RSA_ALGORITHM + _der(0x03, b"\x00" + key))


def rsa_bits(modulus: bytes) -> int:
    """Return the size of an RSA key in bits."""
    return int.from_bytes(modulus, "big").bit_length()


def fingerprint(public_key: bytes) -> str:
    """Return the fingerprint of a SubjectPublicKeyInfo in hexadecimal."""
    return sodium.sha256(public_key).hex()


def _integer(value: bytes) -> bytes:
    digits = value.lstrip(b"\x00") or b"\x00"
    return _der(0x02, b"\x00" * (digits[0] >> 7) + digits)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
