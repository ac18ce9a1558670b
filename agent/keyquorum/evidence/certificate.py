# SPDX-License-Identifier: Apache-2.0
"""Reading X.509 certificates and revocation lists of evidence: whole, at once, and with everything decoded.

The library reads lazily and writes anew what is asked of it; here every part is taken once, and what it says of names
and bytes comes from the DER itself. Nothing of a library's can come out of a certificate later.
"""

from __future__ import annotations

import binascii
import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.errors import TamperingError
from keyquorum.evidence import distinguished_name
from keyquorum.evidence.result import Link, printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

MAX_CERTIFICATE = 8192
MAX_LIST = 4 * 1024 * 1024
MAX_BUNDLE = 1024 * 1024
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_FILLS = (b"\x00", b"\xff")  # what is after a certificate in an NV index that is larger
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate: its DER, by which it is told from others, and what is in it.

    `signed` is the part under the signature, `issuer` and `subject` are names in DER, each with a text for people.
    `constraints` and `usage` are those of its extensions if it has them, `parsed` is the library's own.
    """

    der: bytes
    signed: bytes = field(compare=False, repr=False)
    issuer: bytes = field(compare=False, repr=False)
    subject: bytes = field(compare=False, repr=False)
    issuer_text: str = field(compare=False, repr=False)
    subject_text: str = field(compare=False)
    serial: int = field(compare=False)
    starts: dt.datetime = field(compare=False)
    ends: dt.datetime = field(compare=False)
    extensions: x509.Extensions = field(compare=False, repr=False)
    constraints: x509.BasicConstraints | None = field(compare=False, repr=False)
    usage: x509.KeyUsage | None = field(compare=False, repr=False)
    key: CertificatePublicKeyTypes = field(compare=False, repr=False)
    parsed: x509.Certificate = field(compare=False, repr=False)

    @property
    def sha256(self) -> str:
        """By which it is pinned."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def link(self) -> Link:
        """What a result says about it."""
        return Link(
            subject=self.subject_text,
            issuer=self.issuer_text,
            sha256=self.sha256,
            not_after=max(0, int(self.ends.timestamp())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """One list: whose it is (a name in DER), from when and until when it counts, and the library's own."""

    issuer: bytes
    starts: dt.datetime
    ends: dt.datetime | None
    extensions: x509.Extensions
    parsed: x509.CertificateRevocationList


def load(data: bytes, what: str) -> Certificate:
    """Read one certificate in DER, with or without the fill of an NV index after it; raises `TamperingError`."""
    if len(data) > MAX_CERTIFICATE:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_CERTIFICATE} allowed")
    size = _der_size(data, what)
    if data[size:] and data[size:].strip(data[-1:]) + data[-1:] not in _FILLS:
        raise TamperingError(what, "", f"{len(data) - size} bytes after its end")
    der = bytes(data[:size])
    try:
        parsed = x509.load_der_x509_certificate(der)
        signed, issuer, subject = distinguished_name.of_certificate(der)
        issuer_text = printable(distinguished_name.text(issuer))
        values = {type(extension.value): extension.value for extension in parsed.extensions}
        constraints, usage = values.get(x509.BasicConstraints), values.get(x509.KeyUsage)
        found = Certificate(
            der=der,
            signed=signed,
            issuer=issuer,
            subject=subject,
            issuer_text=issuer_text,
            subject_text=issuer_text if subject == issuer else printable(distinguished_name.text(subject)),
            serial=parsed.serial_number,
            starts=parsed.not_valid_before_utc,
            ends=parsed.not_valid_after_utc,
            extensions=parsed.extensions,
            constraints=constraints if isinstance(constraints, x509.BasicConstraints) else None,
            usage=usage if isinstance(usage, x509.KeyUsage) else None,
            key=parsed.public_key(),
            parsed=parsed,
        )
        _decoded(parsed.signature_algorithm_parameters)
        whole = parsed.public_bytes(Encoding.DER) == der
    except (*UNREADABLE, TamperingError, Warning) as problem:
        raise TamperingError(what, "", f"is not a certificate that can be read ({printable(str(problem))})") from None
    if not whole or found.serial <= 0 or parsed.version is not x509.Version.v3:
        raise TamperingError(what, "", "is not a certificate of version 3 with a positive serial number")
    return found


def load_bundle(data: bytes, what: str) -> tuple[Certificate, ...]:
    """Read certificates in PEM, as makers publish their roots, with text between; raises `TamperingError` if none."""
    if len(data) > MAX_BUNDLE:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_BUNDLE} allowed")
    before, *blocks = data.split(_BEGIN)
    found = tuple(load(_unarmoured(block.partition(_END), what), what) for block in blocks)
    if not found or data.count(b"-----BEGIN ") != len(found) or _END in before:
        raise TamperingError(what, "", "has PEM blocks that are torn, or are no certificates, or none at all")
    return found


def from_pem(data: bytes, what: str, cap: int) -> tuple[bytes, ...]:
    """Return the certificates of a PEM text in DER, in their order, with nothing between; raises `TamperingError`."""
    if len(data) > cap:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {cap} allowed")
    before, *blocks = data.split(_BEGIN)
    parts = [block.partition(_END) for block in blocks]
    if not parts or before.strip() or any(after.strip() for _, _, after in parts):
        raise TamperingError(what, "", "is not a list of certificates in PEM, with nothing between")
    return tuple(_unarmoured(part, what) for part in parts)


def _unarmoured(block: tuple[bytes, bytes, bytes], what: str) -> bytes:
    body, end, _ = block
    try:
        found = binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error:
        raise TamperingError(what, "", "has a certificate that is not base64") from None
    if not end:
        raise TamperingError(what, "", "has a certificate without an end")
    return found


def _decoded(*_values: object) -> None:
    """Take values whose decoding is all that was wanted of them."""


def _der_size(data: bytes, what: str) -> int:
    """Return the size of the SEQUENCE at the beginning."""
    if len(data) < 4 or data[0] != 0x30 or data[1] not in {0x81, 0x82}:
        raise TamperingError(what, "", "is not a certificate in DER")
    octets = data[1] & 0x7F
    size = 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")
    if size > len(data):
        raise TamperingError(what, "", f"{size} bytes wanted, {len(data)} there")
    return size


def load_list(data: bytes, what: str) -> RevocationList:
    """Read a revocation list in DER; raises `TamperingError`."""
    if len(data) > MAX_LIST:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_LIST} allowed")
    try:
        parsed = x509.load_der_x509_crl(data)
        found = RevocationList(
            issuer=distinguished_name.of_list(data),
            starts=parsed.last_update_utc,
            ends=parsed.next_update_utc,
            extensions=parsed.extensions,
            parsed=parsed,
        )
        _decoded(parsed.signature_hash_algorithm)
    except (*UNREADABLE, TamperingError, Warning):
        raise TamperingError(what, "", "is not a revocation list that can be read") from None
    return found
