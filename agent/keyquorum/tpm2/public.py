# SPDX-License-Identifier: Apache-2.0
"""Public areas: the storage root key, the sealed object and the signer of PCR policies (Part 2 §12.2)."""

from __future__ import annotations

from keyquorum.errors import RefusedError
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.tpm2.wire import AES, CFB, ECC, ECDSA, KEYEDHASH, NULL, RSA, RSASSA, SHA256, Reader, sized, u16, u32

# TPMA_OBJECT (Part 2 §8.3)
_FIXED_TPM, _FIXED_PARENT, _OWN_SENSITIVE, _USER_WITH_AUTH, _NO_DA = 1 << 1, 1 << 4, 1 << 5, 1 << 6, 1 << 10
_ADMIN_WITH_POLICY = 1 << 7
_RESTRICTED, _DECRYPT, _SIGN = 1 << 16, 1 << 17, 1 << 18

_STORAGE = _FIXED_TPM | _FIXED_PARENT | _OWN_SENSITIVE | _USER_WITH_AUTH | _NO_DA | _RESTRICTED | _DECRYPT
_P256 = 0x0003
_AES_128_CFB = u16(AES) + u16(128) + u16(CFB)
_RSA_EXPONENT = 65537
MAX_PUBLIC = 1024

# What systemd makes at the SRK handle too: EK Credential Profile templates L-2 (ECC) and L-1 (RSA) with the attributes
# of the Provisioning Guidance §7.5.1 and an empty unique field.
SRK_TEMPLATES = {
    "ecc": u16(ECC) + u16(SHA256) + u32(_STORAGE) + sized(b"") + _AES_128_CFB
    + u16(NULL) + u16(_P256) + u16(NULL) + sized(b"") + sized(b""),
    "rsa": u16(RSA) + u16(SHA256) + u32(_STORAGE) + sized(b"") + _AES_128_CFB
    + u16(NULL) + u16(2048) + u32(0) + sized(b""),
}  # fmt: skip

# Signs nothing but what the TPM itself says: a restricted signing key.
_ATTESTATION = _FIXED_TPM | _FIXED_PARENT | _OWN_SENSITIVE | _USER_WITH_AUTH | _NO_DA | _RESTRICTED | _SIGN
ATTESTATION_TEMPLATES = {
    "ecc": u16(ECC) + u16(SHA256) + u32(_ATTESTATION) + sized(b"") + u16(NULL)
    + u16(ECDSA) + u16(SHA256) + u16(_P256) + u16(NULL) + sized(b"") + sized(b""),
    "rsa": u16(RSA) + u16(SHA256) + u32(_ATTESTATION) + sized(b"") + u16(NULL)
    + u16(RSASSA) + u16(SHA256) + u16(2048) + u32(0) + sized(b""),
}  # fmt: skip

# EK Credential Profile, templates L-2 (ECC) and L-1 (RSA), with the policy PolicyA: PolicySecret of the hierarchy.
_ENDORSEMENT = _FIXED_TPM | _FIXED_PARENT | _OWN_SENSITIVE | _ADMIN_WITH_POLICY | _RESTRICTED | _DECRYPT
_POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK_TEMPLATES = {
    "ecc": u16(ECC) + u16(SHA256) + u32(_ENDORSEMENT) + sized(_POLICY_A) + _AES_128_CFB
    + u16(NULL) + u16(_P256) + u16(NULL) + sized(bytes(32)) + sized(bytes(32)),
    "rsa": u16(RSA) + u16(SHA256) + u32(_ENDORSEMENT) + sized(_POLICY_A) + _AES_128_CFB
    + u16(NULL) + u16(2048) + u32(0) + sized(bytes(256)),
}  # fmt: skip


def name(area: bytes) -> bytes:
    """Return the Name of a public area whose name algorithm is SHA-256 (Part 1 §16)."""
    return u16(SHA256) + sodium.sha256(area)


class StorageKey(Record):
    """The public part of a storage root key. `kind` is "ecc" or "rsa"; `unique` is (x, y) or (modulus,)."""

    name: bytes
    kind: str
    unique: tuple[bytes, ...]
    exponent: int = 0


def parse_storage_key(area: bytes) -> StorageKey:
    """Read a public area as a storage root key to which sessions can be salted.

    Raises `RefusedError` for any other kind of key: what is not a restricted decryption key with a SHA-256 name on
    P-256 or RSA may be an ordinary key that somebody else holds.
    """
    reader = Reader(area, "the storage root key's public area")
    kind, name_algorithm, attributes = reader.u16(), reader.u16(), reader.u32()
    reader.sized(64)  # its authPolicy
    if kind not in {ECC, RSA} or name_algorithm != SHA256:
        reader.fail("neither P-256 nor RSA with SHA-256")
    needed = _FIXED_TPM | _FIXED_PARENT | _OWN_SENSITIVE | _RESTRICTED | _DECRYPT
    if attributes & (needed | _SIGN) != needed:
        reader.fail(f"attributes {attributes:#x} are not those of a storage key")
    if reader.u16() != NULL:  # the symmetric cipher that protects its children
        reader.take(4)
    if reader.u16() != NULL:
        reader.fail("a storage key has no scheme")
    if kind == ECC:
        if (reader.u16(), reader.u16()) != (_P256, NULL):
            reader.fail("not on the curve P-256")
        found = StorageKey(name=name(area), kind="ecc", unique=(reader.sized(32), reader.sized(32)))
    else:
        reader.u16()  # bits; the modulus says it
        exponent = reader.u32() or _RSA_EXPONENT
        found = StorageKey(name=name(area), kind="rsa", unique=(reader.sized(512),), exponent=exponent)
    reader.finish()
    return found


def sealed_template(policy: bytes, *, lockout: bool) -> bytes:
    """Return the public area of an object that keeps data and opens by `policy` alone.

    With `lockout`, wrong authorisations count towards the TPM's dictionary attack lockout.
    """
    attributes = _FIXED_TPM | _FIXED_PARENT | (0 if lockout else _NO_DA)
    return u16(KEYEDHASH) + u16(SHA256) + u32(attributes) + sized(policy) + u16(NULL) + sized(b"")


def check_sealed(area: bytes, policy: bytes, *, lockout: bool) -> None:
    """Refuse a public area that is not a sealed object under `policy`; its unique field is the TPM's."""
    begin = sealed_template(policy, lockout=lockout)[:-2]
    if area[: len(begin)] != begin or len(area) != len(begin) + 2 + 32:
        raise RefusedError("the sealed object is not one for the policy that the set states", tampered=True)


def rsa_signer(modulus: bytes, exponent: int) -> bytes:
    """Return the public area of an RSA key that signs PCR policies.

    The exponent 65537 is written as 0, the specification's default (Part 2 §12.2.3.5): some TPMs take nothing else.
    """
    attributes = _DECRYPT | _SIGN | _USER_WITH_AUTH
    written = 0 if exponent == _RSA_EXPONENT else exponent
    parameters = u16(NULL) + u16(NULL) + u16(8 * len(modulus)) + u32(written)
    return u16(RSA) + u16(SHA256) + u32(attributes) + sized(b"") + parameters + sized(modulus)
