# SPDX-License-Identifier: Apache-2.0
"""Intel's certificates: the chain of a platform's PCK and that of the signer of collateral, to a pinned root.

Intel SGX PCK Certificate and Certificate Revocation List Profile Specification. Roots are pinned by the
SHA-256 of their DER. Both chains end in the same root, so the role of each certificate is judged by its name: a
platform's key must not sign collateral, nor the signer of collateral a quoting enclave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate, certificates, der

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.der import Element

# Intel SGX Root CA, valid from 2018 to 2049.
INTEL_ROOTS = frozenset({bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")})
SGX_EXTENSIONS = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
MAX_CHAIN = 16 * 1024
_ARC = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1
_ROOT = "Intel SGX Root CA"
_COMPONENTS = 16


class Roles(NamedTuple):
    """The common names that a chain must have, leaf first, the root's left out."""

    leaf: tuple[str, ...]
    issuers: tuple[str, ...]


PCK = Roles(("Intel SGX PCK Certificate",), ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"))
SIGNER = Roles(("Intel SGX TCB Signing",), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a PCK certificate says of its platform: identity, and the security versions it was certified for."""

    ppid: bytes
    fmspc: bytes
    pce_id: bytes
    components: tuple[int, ...]
    pcesvn: int


def load_chain(
    pem: bytes, roots: frozenset[bytes], roles: Roles, what: str, known: tuple[Certificate, ...] = ()
) -> tuple[Certificate, ...]:
    """Return leaf to root of a chain in PEM if it has exactly the certificates it should, to a pinned root.

    `known` are certificates that were read before; both chains of a quote end in the same root.
    Raises `TamperingError`; its `where` is "role" when the chain holds but is one for something else.
    """
    read = {one.der: one for one in known}
    found = tuple(read.get(one) or certificate.load(one, what) for one in certificate.from_pem(pem, what, MAX_CHAIN))
    count = 3 if roles.issuers else 2
    if len(found) != count:
        raise TamperingError(what, "", f"{len(found)} certificates, not {count}")
    if bytes.fromhex(found[-1].sha256) not in roots:
        raise TamperingError(what, "", f"ends in the root {found[-1].sha256}, which is not trusted")
    path = certificates.chain(found[0], found[1:-1], found[-1:], what)
    if path != found:
        raise TamperingError(what, "", "does not go from each certificate to its issuer")
    wanted = (roles.leaf, *([roles.issuers] if roles.issuers else []), (_ROOT,))
    for one, names in zip(path, wanted, strict=True):
        if _common_name(one) not in names:
            raise TamperingError(what, "role", f"{one.subject_text} where {' or '.join(names)} belongs")
    _check_leaf(path[0], what)
    return path


def _common_name(one: Certificate) -> str:
    names = [part.removeprefix("CN=") for part in one.subject_text.split(",") if part.startswith("CN=")]
    return names[0] if len(names) == 1 else ""


def _check_leaf(leaf: Certificate, what: str) -> None:
    """The leaf signs and issues nothing; its key is of P-256."""
    key, usage, authority = leaf.key, leaf.usage, leaf.constraints is not None and leaf.constraints.ca
    if authority or usage is None or not usage.digital_signature or usage.key_cert_sign:
        raise TamperingError(what, "role", f"{leaf.subject_text} is not for signing data alone")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TamperingError(what, "role", f"the key of {leaf.subject_text} is not of P-256")


def platform(leaf: Certificate, what: str) -> Platform:
    """Read the SGX extensions of a PCK certificate; raises `TamperingError`."""
    try:
        value = leaf.extensions.get_extension_for_oid(SGX_EXTENSIONS).value
    except x509.ExtensionNotFound:
        raise TamperingError(what, "", "has no SGX extensions") from None
    if not isinstance(value, x509.UnrecognizedExtension):
        raise TamperingError(what, "", "has SGX extensions that cannot be read")
    fields = _table(_only(value.value, what), what)
    versions = _table(_typed(fields, b"\x02", der.SEQUENCE, what), what)
    found = Platform(
        ppid=_typed(fields, b"\x01", der.OCTETS, what),
        pce_id=_typed(fields, b"\x03", der.OCTETS, what),
        fmspc=_typed(fields, b"\x04", der.OCTETS, what),
        components=tuple(_number(versions, bytes((2, n)), 255, what) for n in range(1, _COMPONENTS + 1)),
        pcesvn=_number(versions, bytes((2, _COMPONENTS + 1)), 0xFFFF, what),
    )
    if (len(found.ppid), len(found.pce_id), len(found.fmspc)) != (16, 2, 6):
        raise TamperingError(what, "", "has SGX extensions of wrong sizes")
    return found


def _only(data: bytes, what: str) -> bytes:
    elements = der.elements(data, what)
    if len(elements) != 1 or elements[0][0] != der.SEQUENCE:
        raise TamperingError(what, "", "has SGX extensions that are not one sequence")
    return elements[0][2]


def _table(data: bytes, what: str) -> dict[bytes, Element]:
    """Read a sequence of pairs of an object identifier below ours and its value."""
    found: dict[bytes, Element] = {}
    for tag, _, content in der.elements(data, what):
        pair = der.elements(content, what) if tag == der.SEQUENCE else []
        if len(pair) != 2 or pair[0][0] != der.OID or not pair[0][2].startswith(_ARC):
            raise TamperingError(what, "", "has SGX extensions with something that is no pair of name and value")
        name = pair[0][2].removeprefix(_ARC)
        if name in found:
            raise TamperingError(what, "", "has one SGX extension twice")
        found[name] = pair[1]
    return found


def _typed(fields: dict[bytes, Element], name: bytes, kind: int, what: str) -> bytes:
    tag, _, content = fields.get(name, (None, b"", b""))
    if tag != kind:
        raise TamperingError(what, "", f"lacks the SGX extension {'.'.join(map(str, name))}, or has it of another type")
    return content


def _number(fields: dict[bytes, Element], name: bytes, most: int, what: str) -> int:
    content = _typed(fields, name, der.INTEGER, what)
    value = int.from_bytes(content, "big", signed=True)
    if not content or not 0 <= value <= most:
        raise TamperingError(what, "", f"has no number from 0 to {most} as SGX extension {'.'.join(map(str, name))}")
    return value
