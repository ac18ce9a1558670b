# SPDX-License-Identifier: Apache-2.0
"""The custodian's own certificate authority: one for its server, one certificate for each machine (docs §11.2).

Pure but for the randomness of keys and serial numbers: the instant is an argument.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyquorum.errors import MalformedError, TamperingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

LABELS = {"country": NameOID.COUNTRY_NAME, "region": NameOID.LOCALITY_NAME, "operator": NameOID.ORGANIZATION_NAME}
_AUTHORITY_YEARS, _LEAF_YEARS = 20, 5
_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_LONGEST_HOST = 253
_EARLIER = dt.timedelta(hours=1)  # for clocks that are behind
_WHAT = "the TLS key"
_REMEMBERED = 1024  # certificates whose signature was checked, by their bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Authority:
    """A private key and its certificate."""

    private: ec.EllipticCurvePrivateKey
    certificate: Certificate

    def issue_client(self, public: bytes, name: str, labels: Mapping[str, str], now: int) -> Certificate:
        """Return a machine's certificate for a SubjectPublicKeyInfo; raises `TamperingError` for an unfit key.

        Like all that issue, it raises `UsageError` when this authority is over.
        """
        subject = [x509.NameAttribute(oid, labels[label]) for label, oid in LABELS.items() if labels.get(label)]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        return self._issue(client_key(public), x509.Name(subject), (ExtendedKeyUsageOID.CLIENT_AUTH, ()), now)

    def issue_server(self, public: ec.EllipticCurvePublicKey, names: Sequence[str], now: int) -> Certificate:
        """Return the server's certificate for some host names and addresses, the first of which is its name."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        return self._issue(public, subject, (ExtendedKeyUsageOID.SERVER_AUTH, tuple(names)), now)

    def reissue(self, old: Certificate, now: int) -> Certificate:
        """Return a certificate of this authority anew: same key, same names, another time."""
        names = names_of(old)
        public = client_key(key_der(old))
        use = (ExtendedKeyUsageOID.SERVER_AUTH, tuple(names)) if names else (ExtendedKeyUsageOID.CLIENT_AUTH, ())
        return self._issue(public, old.subject, use, now)

    def _issue(
        self,
        public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
        subject: x509.Name,
        use: tuple[x509.ObjectIdentifier, tuple[str, ...]],
        now: int,
    ) -> Certificate:
        purpose, names = use
        start = dt.datetime.fromtimestamp(now, dt.UTC)
        builder = (
            x509.CertificateBuilder(self.certificate.subject, subject, public, x509.random_serial_number())
            .not_valid_before(start - _EARLIER)
            .not_valid_after(self._end(start))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(issues=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), False)
        return builder.sign(self.private, hashes.SHA256())

    def _end(self, start: dt.datetime) -> dt.datetime:
        """Return until when a certificate is good: no longer than what it leads to; raises `UsageError`."""
        over = self.certificate.not_valid_after_utc
        if start >= over:
            raise UsageError(
                f"the custodian's authority is over since {over:%Y-%m-%d}: it issues nothing more",
                "found a new custodian and move its machines there (docs/custodian.md §11.4)",
            )
        return min(start + dt.timedelta(days=365 * _LEAF_YEARS), over)

    def issued(self, certificate: Certificate) -> bool:
        """Say whether this authority signed a certificate."""
        try:
            _demand_issued(certificate, self.certificate)
        except (InvalidSignature, TypeError, ValueError):
            return False
        return True


@lru_cache(_REMEMBERED)
def _demand_issued(certificate: Certificate, by: Certificate) -> None:
    """Raise what the library raises unless `by` signed a certificate; only those that it did sign are remembered."""
    certificate.verify_directly_issued_by(by)


def found(origin: str, now: int) -> Authority:
    """Make an authority for a custodian."""
    private = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {origin}"[:64])])
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, private.public_key(), x509.random_serial_number())
        .not_valid_before(start - _EARLIER)
        .not_valid_after(start + dt.timedelta(days=365 * _AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return Authority(private=private, certificate=certificate)


def load(key: bytes, certificate: bytes, what: str) -> Authority:
    """Read an authority from two PEM files; raises `MalformedError`."""
    try:
        private, loaded = load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError(what, "", "is no private key with its certificate in PEM") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or loaded.public_key() != private.public_key():
        raise MalformedError(what, "", "is not an EC key with a certificate of its own")
    return Authority(private=private, certificate=loaded)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a file has it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_der(certificate: Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate's key."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def names_of(certificate: Certificate) -> list[str]:
    """Return the host names and addresses of a server's certificate, [] if it has none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found if isinstance(name, (x509.DNSName, x509.IPAddress))]


def labels_of(certificate: Certificate) -> tuple[str, dict[str, str]]:
    """Return name and labels of a machine's certificate; "" for what is missing or there twice."""

    def one(oid: x509.ObjectIdentifier) -> str:
        values = certificate.subject.get_attributes_for_oid(oid)
        return str(values[0].value) if len(values) == 1 else ""

    return one(NameOID.COMMON_NAME), {label: text for label, oid in LABELS.items() if (text := one(oid))}


def check_names(names: Sequence[str]) -> None:
    """Raise `MalformedError` for names that no server's certificate can have."""
    for name in names:
        _name(name)


def client_key(public: bytes) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    """Read a machine's TLS key from its SubjectPublicKeyInfo; raises `TamperingError` for one of no use."""
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        raise TamperingError(_WHAT, "", "is no SubjectPublicKeyInfo") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return key
    raise TamperingError(_WHAT, "", "is neither Ed25519 nor on P-256 or P-384")


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not text.isascii() or not _HOST.issuperset(text) or not 0 < len(text) <= _LONGEST_HOST:
            raise MalformedError("the server's name", "", f"{text!r} is neither a host's name nor an address") from None
        return x509.DNSName(text)


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )
