# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates of evidence: reading one, and building the short chain to a given root (RFC 5280 §6).

`cryptography` has a path validation of its own, but it is shaped for TLS servers. What evidence has are fixed short
chains; every algorithm, every critical extension and every instant is looked at here. No clock, no store of roots.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from keyquorum.errors import TamperingError
from keyquorum.evidence import distinguished_name
from keyquorum.evidence.distinguished_name import issuer_and_subject
from keyquorum.evidence.result import Link, printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

MAX_CERTIFICATE = 8192
MAX_LIST = 4 * 1024 * 1024
MAX_BUNDLE = 1024 * 1024
MAX_INTERMEDIATES = 8
_MAX_DEPTH = 4  # certificates below the root
_FILLS = (b"\x00", b"\xff")  # what is after a certificate in an NV index that is larger
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MIN_RSA = 2048
_PROCESSED = frozenset({
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
})  # fmt: skip
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def load(data: bytes, what: str) -> Certificate:
    """Read one certificate in DER, with or without the fill of an NV index after it; raises `TamperingError`.

    Everything in it is decoded at once, so that nothing of a library's can come out of it later.
    """
    if len(data) > MAX_CERTIFICATE:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_CERTIFICATE} allowed")
    size = _der_size(data, what)
    if data[size:] and data[size:].strip(data[-1:]) + data[-1:] not in _FILLS:
        raise TamperingError(what, "", f"{len(data) - size} bytes after its end")
    try:
        found = x509.load_der_x509_certificate(bytes(data[:size]))
        _decoded(found.public_key(), found.extensions, found.signature_algorithm_parameters)
        _decoded(found.not_valid_before_utc, found.not_valid_after_utc)
        _decoded(link(found))
        whole = found.public_bytes(Encoding.DER) == data[:size]
        serial = found.serial_number
    except (*_UNREADABLE, IndexError, Warning) as problem:
        raise TamperingError(what, "", f"is not a certificate that can be read ({printable(str(problem))})") from None
    if not whole or serial <= 0 or found.version is not x509.Version.v3:
        raise TamperingError(what, "", "is not a certificate of version 3 with a positive serial number")
    return found


def load_bundle(data: bytes, what: str) -> tuple[Certificate, ...]:
    """Read certificates in PEM, as makers publish their roots; raises `TamperingError`, also if there is none."""
    if len(data) > MAX_BUNDLE:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_BUNDLE} allowed")
    try:
        found = [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data)]
    except (*_UNREADABLE, Warning) as problem:
        raise TamperingError(what, "", f"has no certificates that can be read ({printable(str(problem))})") from None
    if len(found) != data.count(b"-----BEGIN "):
        raise TamperingError(what, "", "has PEM blocks that are torn, or are no certificates")
    return tuple(load(one, what) for one in found)


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


def subject_text(certificate: Certificate) -> str:
    """Return whose certificate it is, for people."""
    return printable(distinguished_name.text(issuer_and_subject(certificate)[1]))


def link(certificate: Certificate) -> Link:
    """Return what a result says about a certificate."""
    issuer, subject = issuer_and_subject(certificate)
    return Link(
        subject=printable(distinguished_name.text(subject)),
        issuer=printable(distinguished_name.text(issuer)),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_after=max(0, int(certificate.not_valid_after_utc.timestamp())),
    )


def instant(now: int) -> dt.datetime:
    """Return seconds since 1970 as `cryptography` compares them."""
    return dt.datetime.fromtimestamp(now, dt.UTC)


def chain(
    leaf: Certificate, intermediates: tuple[Certificate, ...], roots: tuple[Certificate, ...], what: str
) -> tuple[Certificate, ...]:
    """Return leaf, intermediates and root in order; raises `TamperingError` when no root issued it.

    Instants and revocation are the business of `check_validity` and `check_revocation`.
    """
    _check_extensions(leaf, what)
    if len(intermediates) > MAX_INTERMEDIATES:
        raise TamperingError(what, "", f"{len(intermediates)} intermediates are more than {MAX_INTERMEDIATES}")
    found = _climb((leaf,), intermediates, roots)
    if found is None:
        raise TamperingError(what, "", f"no given root, nor an intermediate below one, issued {subject_text(leaf)}")
    return found


def _climb(
    path: tuple[Certificate, ...], intermediates: tuple[Certificate, ...], roots: tuple[Certificate, ...]
) -> tuple[Certificate, ...] | None:
    """Go up from the end of a path, depth first; a certificate is used once."""
    below = len(path) - 1
    for root in roots:
        if _issued(path[-1], root, below):
            return (*path, root)
    if len(path) < _MAX_DEPTH:
        for one in intermediates:
            if one not in path and _issued(path[-1], one, below):
                found = _climb((*path, one), intermediates, roots)
                if found is not None:
                    return found
    return None


def _issued(certificate: Certificate, candidate: Certificate, below: int) -> bool:
    """Say whether a candidate issued a certificate and may; `below` authorities are under it already."""
    if (
        issuer_and_subject(candidate)[1] != issuer_and_subject(certificate)[0]
        or not may_issue(candidate, below)
        or not _strong(certificate, candidate)
    ):
        return False
    try:
        certificate.verify_directly_issued_by(candidate)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def may_issue(candidate: Certificate, below: int) -> bool:
    """Say whether a certificate is an authority's that may sign certificates, with `below` authorities under it."""
    try:
        _check_extensions(candidate, "an authority")
        constraints = candidate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = candidate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (TamperingError, x509.ExtensionNotFound):
        return False
    short = constraints.path_length is None or below <= constraints.path_length
    return constraints.ca and short and usage.key_cert_sign


def _strong(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        algorithm, key = certificate.signature_hash_algorithm, issuer.public_key()
    except _UNREADABLE:
        return False
    enough = (
        key.key_size >= _MIN_RSA if isinstance(key, rsa.RSAPublicKey) else isinstance(key, ec.EllipticCurvePublicKey)
    )
    return isinstance(algorithm, _STRONG) and enough


def _check_extensions(certificate: Certificate, what: str) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _PROCESSED:
            raise TamperingError(what, "", f"critical extension {extension.oid.dotted_string} is not known here")


def check_validity(path: tuple[Certificate, ...], now: int, what: str) -> None:
    """Raise `TamperingError` naming the first certificate that is not valid at `now`."""
    moment = instant(now)
    for one in path:
        if not one.not_valid_before_utc <= moment <= one.not_valid_after_utc:
            span = f"{one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}"
            raise TamperingError(what, "", f"{subject_text(one)} is valid from {span}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Lists that were given, and whether every issuer must have one."""

    lists: tuple[CertificateRevocationList, ...] = ()
    demanded: bool = False


def load_list(data: bytes, what: str) -> CertificateRevocationList:
    """Read a revocation list in DER; raises `TamperingError`."""
    if len(data) > MAX_LIST:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {MAX_LIST} allowed")
    try:
        found = x509.load_der_x509_crl(data)
        _decoded(found.extensions, found.signature_hash_algorithm, distinguished_name.issuer_of_list(found))
        _decoded(found.last_update_utc, found.next_update_utc)
    except (*_UNREADABLE, IndexError, Warning):
        raise TamperingError(what, "", "is not a revocation list that can be read") from None
    return found


def check_revocation(path: tuple[Certificate, ...], revocation: Revocation, now: int, what: str) -> int:
    """Return how many certificates of a chain were looked up; raises `TamperingError` if one is revoked.

    A list counts if the issuer signed it and it is current. One that does not count is as bad as one that is missing.
    """
    looked_up = 0
    by = [(distinguished_name.issuer_of_list(one), one) for one in revocation.lists]
    for certificate, issuer in pairwise(path):
        whose = issuer_and_subject(issuer)[1]
        lists = [one for name, one in by if name == whose]
        if not lists:
            if revocation.demanded:
                raise TamperingError(what, "", f"no revocation list of the issuer of {subject_text(certificate)}")
            continue
        valid = [one for one in lists if _current(one, issuer, now)]
        if not valid:
            raise TamperingError(what, "", f"no valid revocation list of the issuer of {subject_text(certificate)}")
        serial = certificate.serial_number
        if any(one.get_revoked_certificate_by_serial_number(serial) is not None for one in valid):
            name = subject_text(certificate)
            raise TamperingError(what, "", f"{name} with the serial number {serial:x} is revoked")
        looked_up += 1
    return looked_up


def _current(one: CertificateRevocationList, issuer: Certificate, now: int) -> bool:
    moment = instant(now)
    try:
        signed = one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # other kinds raise TypeError
        known = not any(extension.critical for extension in one.extensions)
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False
    ends, strong = one.next_update_utc, isinstance(one.signature_hash_algorithm, _STRONG)
    return signed and known and strong and usage.crl_sign and ends is not None and one.last_update_utc <= moment <= ends
