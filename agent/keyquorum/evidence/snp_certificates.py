# SPDX-License-Identifier: Apache-2.0
"""Certificates of AMD's chips: ARK, ASK or ASVK, VCEK or VLEK (AMD 57230; docs/attestation-snp.md §3).

The leaf's serial number is 0, which RFC 5280 forbids; libraries warn of it and are going to refuse it. So one with
this number is read as if it had the number 1, and its signature is checked over the bytes as they came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate, certificates
from keyquorum.evidence.snp_report import GENOA, MILAN, PRODUCTS, SIGNED_BY_VCEK, SIGNED_BY_VLEK, TURIN

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.result import Link

_OID = "1.3.6.1.4.1.3704.1"
_TCB = {
    f"{_OID}.3.9": "fmc",
    f"{_OID}.3.1": "bootloader",
    f"{_OID}.3.2": "tee",
    f"{_OID}.3.3": "snp",
    f"{_OID}.3.8": "microcode",
}
_SPARE = tuple(f"{_OID}.3.{number}" for number in (4, 5, 6, 7))
_PRODUCT_NAME, _HARDWARE_ID, _PROVIDER = f"{_OID}.2", f"{_OID}.4", f"{_OID}.5"
_INTEGER, _OCTET_STRING, _IA5_STRING = 0x02, 0x04, 0x16

_NO_SERIAL = bytes.fromhex("a003020102 020100")  # version 3, serial number 0
_AFTER_HEADERS = 8  # where they are: behind the headers of Certificate and TBSCertificate
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
_NAME = "CN={},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering"
_MIN_RSA = 2048
_MAX_PEM = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Whom to believe for one product: SHA-256 of the DER of the root (ARK), and of its ASK and ASVK.

    Where `intermediates` is empty any authority will do that the root made.
    """

    product: str
    root: str
    intermediates: frozenset[str] = frozenset()


AMD = (
    Anchor(
        product=MILAN,
        root="69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        intermediates=frozenset({
            "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
            "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
        }),
    ),
    Anchor(
        product=GENOA,
        root="4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        intermediates=frozenset({
            "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
            "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
        }),
    ),
    Anchor(
        product=TURIN,
        root="1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        intermediates=frozenset({
            "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
            "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
        }),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A VCEK's or VLEK's certificate. `certificate` may have another serial number than `data`, which is as it came.

    `tcb` has the components that the certificate names, `hardware_id` is empty in a VLEK's, `provider` in a VCEK's.
    """

    certificate: Certificate
    data: bytes
    key: ec.EllipticCurvePublicKey
    product: str
    tcb: dict[str, int]
    hardware_id: bytes
    provider: str


def fingerprint(data: bytes) -> str:
    """Return the SHA-256 by which a certificate is pinned."""
    return hashlib.sha256(data).hexdigest()


def from_pem(data: bytes, what: str) -> tuple[bytes, ...]:
    """Return the certificates of a PEM text in DER, in their order; raises `TamperingError`."""
    return certificate.from_pem(data, what, _MAX_PEM)


def load_authority(data: bytes, what: str) -> Certificate:
    """Read a root's or an intermediate's certificate; raises `TamperingError`."""
    found = certificate.load(data, what)
    if found.der != data or not isinstance(found.key, rsa.RSAPublicKey) or found.key.key_size < _MIN_RSA:
        raise TamperingError(what, "", f"is not one certificate of an RSA key of at least {_MIN_RSA} bits")
    return found


def load_leaf(data: bytes, what: str) -> Leaf:
    """Read a VCEK's or VLEK's certificate; raises `TamperingError`."""
    readable = bytearray(data[: certificate.MAX_CERTIFICATE + 1])
    serial = _AFTER_HEADERS + len(_NO_SERIAL) - 1
    if readable[_AFTER_HEADERS : serial + 1] == _NO_SERIAL:
        readable[serial] = 1
    found = certificate.load(bytes(readable), what)
    key = found.key
    if found.der != readable or not isinstance(key, ec.EllipticCurvePublicKey):
        raise TamperingError(what, "", "is not one certificate of a key on an elliptic curve")
    if not isinstance(key.curve, ec.SECP384R1):
        raise TamperingError(what, "", f"has a key on {key.curve.name}, not on P-384")
    values = _extensions(found, what)
    tcb = {word: _integer(values[oid], what) for oid, word in _TCB.items() if oid in values}
    if any(_integer(values[oid], what) for oid in _SPARE if oid in values):
        raise TamperingError(what, "", "has something in the reserved bytes of its TCB version")
    provider = _text(values[_PROVIDER], what) if _PROVIDER in values else ""
    return Leaf(
        certificate=found,
        data=bytes(data),
        key=key,
        product=_text(values.get(_PRODUCT_NAME, b""), what).partition("-")[0],  # a stepping may follow: "Milan-B0"
        tcb=tcb,
        hardware_id=_hardware_id(values.get(_HARDWARE_ID, b"")),
        provider=provider.removeprefix("CN="),
    )


def _extensions(chips: Certificate, what: str) -> dict[str, bytes]:
    found = {}
    for extension in chips.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            found[extension.oid.dotted_string] = extension.value.value
        if extension.critical:
            raise TamperingError(what, "", f"critical extension {extension.oid.dotted_string} is not known here")
    return found


def _content(value: bytes, tag: int, what: str) -> bytes:
    if len(value) < 3 or value[0] != tag or value[1] != len(value) - 2 or value[1] & 0x80:
        raise TamperingError(what, "", f"an extension has the value {value[:8].hex() or 'nothing'}")
    return value[2:]


def _integer(value: bytes, what: str) -> int:
    """Return a TCB component: 0 to 255 in DER."""
    content = _content(value, _INTEGER, what)
    if len(content) > 2 or content[0] & 0x80 or (len(content) == 2 and (content[0] or not content[1] & 0x80)):
        raise TamperingError(what, "", f"a component of its TCB version is {content.hex()}")
    return content[-1]


def _text(value: bytes, what: str) -> str:
    return _content(value, _IA5_STRING, what).decode("ascii", "replace")


def _hardware_id(value: bytes) -> bytes:
    """Return the chip's identity; some certificates have it as it is, some in an OCTET STRING."""
    wrapped = len(value) in {10, 66} and value[0] == _OCTET_STRING and value[1] == len(value) - 2
    return value[2:] if wrapped else value


def roles(leaf: Leaf, intermediate: Certificate, root: Certificate) -> tuple[int | None, str]:
    """Return which signing key a chain is for and of which product, by the names; (None, "") if they do not agree."""
    names = tuple(one.subject_text for one in (leaf.certificate, intermediate, root))
    for product in PRODUCTS:
        for role, kind, authority in ((SIGNED_BY_VCEK, "VCEK", ""), (SIGNED_BY_VLEK, "VLEK", "VLEK-")):
            wanted = (f"SEV-{kind}", f"SEV-{authority}{product}", f"ARK-{product}")
            if names == tuple(map(_NAME.format, wanted)):
                return role, product
    return None, ""


def check_intermediate(intermediate: Certificate, root: Certificate, what: str) -> None:
    """Return if the root made the intermediate, by RSA-PSS with SHA-384, and may; raises `TamperingError`."""
    if not certificates.may_issue(root, 1) or not _pss(intermediate):
        raise TamperingError(what, "", f"{root.subject_text} may not issue the intermediate like this")
    certificates.chain(intermediate, (), (root,), what)


def check_leaf(leaf: Leaf, intermediate: Certificate, what: str) -> None:
    """Return if the intermediate made the leaf, by RSA-PSS with SHA-384, and may; raises `TamperingError`."""
    size = len(leaf.certificate.signed)
    original = leaf.data[4 : 4 + size]
    outside = leaf.data[4 + size :]
    algorithm = outside[: 2 + outside[1]]
    inside = original[11 + original[10] :]  # headers of 4 + 5 + 2 bytes, then the serial number
    same = intermediate.subject == leaf.certificate.issuer
    key = intermediate.key
    if (
        not same
        or not certificates.may_issue(intermediate, 0)
        or not _pss(leaf.certificate)
        or not inside.startswith(algorithm)
        or not isinstance(key, rsa.RSAPublicKey)
    ):
        raise TamperingError(
            what, "", "the chip's certificate is of another issuer than the given one, or in another way"
        )
    try:
        key.verify(leaf.certificate.parsed.signature, original, _PSS, hashes.SHA384())
    except InvalidSignature:
        raise TamperingError(what, "", f"the chip's certificate is not signed by {intermediate.subject_text}") from None


def _pss(one: Certificate) -> bool:
    try:
        algorithm = one.parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    known = one.parsed.signature_algorithm_oid == x509.SignatureAlgorithmOID.RSASSA_PSS
    return known and isinstance(algorithm, hashes.SHA384)


def links(leaf: Leaf, intermediate: Certificate, root: Certificate) -> tuple[Link, ...]:
    """Return what a result says about a chain."""
    return (replace(leaf.certificate.link, sha256=fingerprint(leaf.data)), intermediate.link, root.link)
