# SPDX-License-Identifier: Apache-2.0
"""A maker of TPMs: root, intermediates, endorsement certificates and revocation lists, with one thing wrong at will."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keyquorum.evidence.ek_certificate import EK_USAGE
from unit.evidence.tpm_maker import NOW, private

START = dt.datetime.fromtimestamp(NOW, dt.UTC) - dt.timedelta(days=1)
END = START + dt.timedelta(days=30)
_MAKER = {"2.23.133.2.1": "id:54455354", "2.23.133.2.2": "test", "2.23.133.2.3": "id:00010002"}


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{bit: bits.get(bit, False) for bit in names})


def maker_name(**changes: str | None) -> x509.SubjectAlternativeName:
    """Return the TPM's maker, model and version; a None leaves one out."""
    values: dict[str, str | None] = dict(_MAKER)
    values |= {f"2.23.133.2.{key[-1]}": value for key, value in changes.items()}
    attributes = [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in values.items() if value]
    return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(attributes))])


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Whoever signs certificates."""

    subject: str
    key: str = "p256"
    number: int = 20

    def sign(
        self,
        subject: str,
        key: Any,
        extensions: list[tuple[x509.ExtensionType, bool]],
        *,
        start: dt.datetime = START,
        end: dt.datetime = END,
        serial: int = 77,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(name(self.subject), name(subject), key, serial, start, end)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(private(self.key, self.number), hashes.SHA256())

    def revoke(
        self, *serials: int, start: dt.datetime = START, end: dt.datetime = END, number: int | None = None
    ) -> bytes:
        """Return a revocation list; by another key if a number is given."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(name(self.subject))
        builder = builder.last_update(start).next_update(end)
        for serial in serials:
            row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
            builder = builder.add_revoked_certificate(row)
        signer = private(self.key, self.number if number is None else number)
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


ROOT, INTERMEDIATE = Authority(subject="root"), Authority(subject="intermediate", number=21)
ISSUES = usage(key_cert_sign=True, crl_sign=True)
ENCRYPTS = usage(key_encipherment=True)


@cache
def root(**changes: Any) -> x509.Certificate:
    return ROOT.sign("root", private("p256", 20).public_key(), authority(), **changes)


def authority(*, ca: bool = True, depth: int | None = None, bits: x509.KeyUsage = ISSUES) -> list[Any]:
    return [(x509.BasicConstraints(ca=ca, path_length=depth if ca else None), True), (bits, True)]


def intermediate(extensions: list[Any] | None = None, **changes: Any) -> x509.Certificate:
    key = private("p256", 21).public_key()
    return ROOT.sign("intermediate", key, authority() if extensions is None else extensions, serial=5, **changes)


def endorsement(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    *,
    san: x509.SubjectAlternativeName | None = None,
    critical: bool = True,
    purpose: str = EK_USAGE.dotted_string,
    bits: x509.KeyUsage = ENCRYPTS,
    more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    subject: str = "",
    ca: bool = False,
    **changes: Any,
) -> x509.Certificate:
    """Return an endorsement certificate as it should be, but for what is given."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca, path_length=None), True),
        (bits, True),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), False),
        (san or maker_name(), critical),
        *more,
    ]
    return INTERMEDIATE.sign(subject, key, extensions, **changes)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
