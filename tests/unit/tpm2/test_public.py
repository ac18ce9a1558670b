# SPDX-License-Identifier: Apache-2.0
"""Public areas are those that TSS writes, and only a storage key is taken for one."""

from __future__ import annotations

import pytest
from tpm2_pytss import TPM2B_PUBLIC, TPMA_OBJECT, TPMT_PUBLIC  # type: ignore[import-untyped]  # it has no type hints

from keyquorum.errors import RefusedError
from keyquorum.tpm2 import policy, public
from keyquorum.tpm2.wire import sized, u16, u32

STORAGE = TPMA_OBJECT(0x30472)


def tss(kind: str, attributes: int = 0x30472) -> bytes:
    return bytes(TPMT_PUBLIC.parse(kind, objectAttributes=TPMA_OBJECT(attributes), nameAlg="sha256").marshal())


def elliptic(attributes: int = 0x30472, curve: int = 3, name: int = 0x0B, scheme: bytes = u16(0x10)) -> bytes:
    begin = u16(0x23) + u16(name) + u32(attributes) + sized(b"") + bytes.fromhex("000600800043")
    return begin + scheme + u16(curve) + u16(0x10) + sized(b"x" * 32) + sized(b"y" * 32)


def test_the_templates_are_those_of_tss() -> None:
    assert public.SRK_TEMPLATES["ecc"] == tss("ecc256:aes128cfb")
    assert public.SRK_TEMPLATES["rsa"] == tss("rsa2048:aes128cfb")


def test_a_name_is_computed_as_tss_does() -> None:
    area = elliptic()
    unmarshalled, _ = TPM2B_PUBLIC.unmarshal(sized(area))
    assert public.name(area) == bytes(unmarshalled.get_name())


def test_a_storage_key_is_read() -> None:
    found = public.parse_storage_key(elliptic())
    assert (found.kind, found.unique) == ("ecc", (b"x" * 32, b"y" * 32))
    modulus = b"\xc3" + bytes(255)
    found = public.parse_storage_key(public.SRK_TEMPLATES["rsa"][:-2] + sized(modulus))
    assert (found.kind, found.unique, found.exponent) == ("rsa", (modulus,), 65537)


@pytest.mark.parametrize(
    "area",
    [
        elliptic(attributes=0x70472),
        elliptic(attributes=0x20472),
        elliptic(attributes=0x30470),
        elliptic(attributes=0x30452),
        elliptic(curve=4),
        elliptic(name=0x0C),
        elliptic(scheme=u16(0x19) + u16(0x0B)),
        elliptic()[:-1],
        elliptic() + b"\x00",
        elliptic()[:40],
        b"",
        u16(0x08) + elliptic()[2:],
        tss("rsa2048", 0x60472),
    ],
    ids=[
        "signs too", "not restricted", "not bound to the TPM", "made outside", "P-384", "SHA-384 name", "with a scheme",
        "cut", "longer", "half", "empty", "keyed hash", "ordinary RSA key",
    ],
)  # fmt: skip
def test_any_other_key_is_refused(area: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        public.parse_storage_key(area)
    assert caught.value.tampered


@pytest.mark.parametrize("lockout", [False, True])
def test_the_sealed_object_is_bound_to_its_policy(*, lockout: bool) -> None:
    digest = policy.after_auth_value(policy.START)
    template = public.sealed_template(digest, lockout=lockout)
    made = template[:-2] + sized(b"u" * 32)
    public.check_sealed(made, digest, lockout=lockout)
    unmarshalled, _ = TPMT_PUBLIC.unmarshal(made)
    attributes = int(unmarshalled.objectAttributes)
    assert attributes == (0x12 if lockout else 0x412), "opens by policy alone; locks out only with a PIN"
    for wrong in (template, made[:-1], made + b"\x00", made[:2] + b"\x00\x0c" + made[4:]):
        with pytest.raises(RefusedError):
            public.check_sealed(wrong, digest, lockout=lockout)
    with pytest.raises(RefusedError):
        public.check_sealed(made, policy.START, lockout=lockout)
    with pytest.raises(RefusedError):
        public.check_sealed(made, digest, lockout=not lockout)


def test_a_signer_is_the_area_that_tss_makes_of_the_key() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    attributes = TPMA_OBJECT.DECRYPT | TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.USERWITHAUTH
    theirs = TPMT_PUBLIC.from_pem(pem, nameAlg=0x0B, objectAttributes=attributes)
    theirs.parameters.rsaDetail.exponent = 0
    assert public.rsa_signer(key.public_numbers().n.to_bytes(256, "big"), 65537) == bytes(theirs.marshal())
    other = public.rsa_signer(bytes(256), 3)
    assert other[16:20] == u32(3)
