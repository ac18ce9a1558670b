# SPDX-License-Identifier: Apache-2.0
"""Public areas of a TPM's asymmetric keys, as a verifier reads them (TPM 2.0 Part 2 §12.2, Part 1 §16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keyquorum.errors import TamperingError
from keyquorum.evidence.tpm_wire import (
    AES,
    CFB,
    ECC,
    ECDSA,
    ENDORSEMENT,
    HASHES,
    MAX_DIGEST,
    NULL,
    RSA,
    RSAPSS,
    RSASSA,
    Reader,
    digest,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

MAX_PUBLIC = 1024

# TPMA_OBJECT (Part 2 §8.3)
FIXED_TPM, ST_CLEAR, FIXED_PARENT, OWN_SENSITIVE = 1 << 1, 1 << 2, 1 << 4, 1 << 5
USER_WITH_AUTH, ADMIN_WITH_POLICY, NO_DA = 1 << 6, 1 << 7, 1 << 10
ENCRYPTED_DUPLICATION, RESTRICTED, DECRYPT, SIGN = 1 << 11, 1 << 16, 1 << 17, 1 << 18
FIRMWARE_LIMITED, SVN_LIMITED = 1 << 8, 1 << 9
_ATTRIBUTES = {
    FIXED_TPM: "fixedTPM", ST_CLEAR: "stClear", FIXED_PARENT: "fixedParent", OWN_SENSITIVE: "sensitiveDataOrigin",
    USER_WITH_AUTH: "userWithAuth", ADMIN_WITH_POLICY: "adminWithPolicy", NO_DA: "noDA",
    FIRMWARE_LIMITED: "firmwareLimited", SVN_LIMITED: "svnLimited",
    ENCRYPTED_DUPLICATION: "encryptedDuplication", RESTRICTED: "restricted", DECRYPT: "decrypt", SIGN: "sign",
}  # fmt: skip
_BOUND = FIXED_TPM | FIXED_PARENT | OWN_SENSITIVE | RESTRICTED
ATTESTATION_KEY = (_BOUND | SIGN, DECRYPT)  # demanded, forbidden
ENDORSEMENT_KEY = (_BOUND | DECRYPT, SIGN)

_CURVES: dict[int, tuple[type[ec.EllipticCurve], int]] = {
    0x0003: (ec.SECP256R1, 32),
    0x0004: (ec.SECP384R1, 48),
    0x0005: (ec.SECP521R1, 66),
}
_RSA_BITS = frozenset({2048, 3072, 4096})
_DEFAULT_EXPONENT = 65537
_SIGNING = frozenset({RSASSA, RSAPSS, ECDSA})


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicArea:
    """A key. `scheme` is (algorithm, hash) or None for a key that leaves it open; `cipher` the key bits of AES-CFB.

    `area` are the bytes that were parsed, from which the Name is made: nobody's word for a Name is taken.
    """

    area: bytes
    kind: int
    hash: str
    attributes: int
    cipher: int
    scheme: tuple[int, str] | None
    key: PublicKey

    @property
    def name(self) -> bytes:
        """The Name: hash algorithm and hash of the public area (Part 1 §16)."""
        return self.area[2:4] + digest(self.hash, self.area)

    def lacks(self, rule: tuple[int, int]) -> bool:
        """Say whether attributes that `rule` demands are missing, or forbidden ones set."""
        demanded, forbidden = rule
        return self.attributes & (demanded | forbidden) != demanded

    def scheme_text(self) -> str:
        """Return the signing scheme in words."""
        return f"{word(self.scheme[0])} with {self.scheme[1]}" if self.scheme else "none"


def attribute_text(attributes: int) -> str:
    """Return attributes in words."""
    return " ".join(name for bit, name in _ATTRIBUTES.items() if attributes & bit) or "none"


def qualified_name(names: Iterable[bytes], hierarchy: int = ENDORSEMENT) -> bytes:
    """Return the Qualified Name of the last of `names`, each the parent of the next, the first a primary key.

    Part 1 §16: QN = nameAlg ‖ H(QN of the parent ‖ Name), and a hierarchy's QN is its handle. A key with such a name
    in the endorsement hierarchy also has counters and firmware version that are not obscured (Part 3 §18.1).
    """
    found = hierarchy.to_bytes(4, "big")
    for name in names:
        algorithm = HASHES.get(int.from_bytes(name[:2], "big"))
        if algorithm is None:
            raise TamperingError("a Name", "", f"has the hash {word(int.from_bytes(name[:2], 'big'))}")
        found = name[:2] + digest(algorithm, found + name)
    return found


def parse(area: bytes, what: str) -> PublicArea:
    """Read a TPMT_PUBLIC of an RSA or ECC key; raises `TamperingError` for every other, and for weak keys."""
    reader = Reader(area, what, MAX_PUBLIC)
    kind, name_hash = reader.number(2), _hash(reader)
    attributes = reader.number(4)
    if attributes & ~sum(_ATTRIBUTES):
        reader.fail(f"{attributes:#x} has reserved bits", "objectAttributes")
    reader.sized(MAX_DIGEST)  # authPolicy
    if kind not in {RSA, ECC}:
        reader.fail(f"{word(kind)} is neither RSA nor ECC", "type")
    cipher, scheme = _cipher(reader), _scheme(reader)
    key = _rsa(reader) if kind == RSA else _ecc(reader)
    reader.finish()
    if scheme and (scheme[0] == ECDSA) != (kind == ECC):
        reader.fail(f"{word(scheme[0])} is no scheme of an {word(kind)} key", "scheme")
    return PublicArea(
        area=bytes(area),
        kind=kind,
        hash=name_hash,
        attributes=attributes,
        cipher=cipher,
        scheme=scheme,
        key=key,
    )


def _hash(reader: Reader) -> str:
    algorithm = reader.number(2)
    if algorithm not in HASHES:
        reader.fail(f"{word(algorithm)} is not SHA-256 or better", "hash")
    return HASHES[algorithm]


def _cipher(reader: Reader) -> int:
    """Take a TPMT_SYM_DEF_OBJECT and return its AES key bits, 0 for none."""
    algorithm = reader.number(2)
    if algorithm == NULL:
        return 0
    bits, mode = reader.number(2), reader.number(2)
    if algorithm != AES or mode != CFB or bits not in {128, 192, 256}:
        reader.fail(f"{word(algorithm)} of {bits} bits in mode {word(mode)}", "symmetric")
    return bits


def _scheme(reader: Reader) -> tuple[int, str] | None:
    algorithm = reader.number(2)
    if algorithm == NULL:
        return None
    if algorithm not in _SIGNING:
        reader.fail(f"{word(algorithm)} is not RSASSA, RSAPSS or ECDSA", "scheme")
    return algorithm, _hash(reader)


def _rsa(reader: Reader) -> PublicKey:
    bits, exponent = reader.number(2), reader.number(4) or _DEFAULT_EXPONENT
    modulus = reader.sized(512)
    if bits not in _RSA_BITS or 8 * len(modulus) != bits or not modulus[0] & 0x80 or not modulus[-1] & 1:
        reader.fail(f"an RSA key of {bits} bits with a modulus of {len(modulus)} bytes", "unique")
    if exponent < _DEFAULT_EXPONENT or not exponent & 1:
        reader.fail(f"an RSA key with the exponent {exponent}", "exponent")
    try:
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
    except (ValueError, UnsupportedAlgorithm):
        reader.fail("is not an RSA key", "unique")


def _ecc(reader: Reader) -> PublicKey:
    curve = reader.number(2)
    if curve not in _CURVES:
        reader.fail(f"curve {curve:#06x} is not P-256, P-384 or P-521", "curveID")
    if reader.number(2) != NULL:
        reader.fail("a key derivation scheme is set", "kdf")
    made, size = _CURVES[curve]
    x, y = reader.sized(size), reader.sized(size)
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), made()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        reader.fail("is not a point of the curve", "unique")
