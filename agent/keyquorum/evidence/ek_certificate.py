# SPDX-License-Identifier: Apache-2.0
"""What a TPM's maker certifies: an endorsement key's certificate (TCG EK Credential Profile for TPM 2.0).

Roots, intermediates, revocation lists and the instant are arguments. Some makers issued certificates that no strict
reader takes; for those there is the list of known keys, which an operator fills by hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate, certificates, chain_checks
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.result import printable

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.tpm_public import PublicArea

EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
_MAKER = {
    x509.ObjectIdentifier("2.23.133.2.1"): "manufacturer",
    x509.ObjectIdentifier("2.23.133.2.2"): "model",
    x509.ObjectIdentifier("2.23.133.2.3"): "version",
}
_WHAT = "the EK certificate"
_CERTIFICATE_CHECKS = ("certificate", "key", "usage", "maker", "chain", "validity", "revocation")


NO_LISTS = Revocation()


@dataclass(frozen=True, slots=True, kw_only=True)
class EkTrust:
    """Whose word counts: makers' roots with what is needed to climb to them, and endorsement keys known by hand.

    `listed` holds the SHA-256 of SubjectPublicKeyInfo in DER. A listed key needs no certificate.
    """

    roots: tuple[Certificate, ...] = ()
    intermediates: tuple[Certificate, ...] = ()
    revocation: Revocation = NO_LISTS
    listed: frozenset[bytes] = frozenset()


def key_hash(key: PublicArea) -> bytes:
    """Return the hash by which an endorsement key is listed."""
    return hashlib.sha256(key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def examine(key: PublicArea, given: tuple[bytes, ...], trust: EkTrust, now: int, checks: Checks) -> None:
    """Note every check of an endorsement key's origin; `given` are certificates in DER, the key's own first."""
    shown = key_hash(key).hex()
    if key_hash(key) in trust.listed:
        checks.demand("tpm.ek.listed", expected="on the list of known keys", actual=shown, holds=True)
        for name in _CERTIFICATE_CHECKS:
            checks.waive(f"tpm.ek.{name}", "the key is on the list of known keys")
        return
    checks.waive("tpm.ek.listed", "a key that is not listed needs a certificate", shown)
    data = given[0] if given else b""
    try:
        found = certificate.load(data, _WHAT)
    except TamperingError as problem:
        checks.refuse("tpm.ek.certificate", problem, "a certificate, or a key on the list of known keys")
        return
    checks.demand("tpm.ek.certificate", expected="a certificate", actual=f"{len(data)} bytes", holds=True)
    checks.demand(
        "tpm.ek.key",
        expected=shown,
        actual=_spki_hash(found),
        holds=found.key == key.key,
    )
    _examine_usage(found, checks)
    _examine_maker(found, checks)
    _examine_chain(found, given[1:], trust, now, checks)


def _spki_hash(own: Certificate) -> str:
    encoded = own.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _examine_usage(own: Certificate, checks: Checks) -> None:
    """The certificate is for an endorsement key, and its key encrypts: it neither signs nor issues."""
    problems = []
    usages = next((item.value for item in own.extensions if isinstance(item.value, x509.ExtendedKeyUsage)), None)
    if usages is None or EK_USAGE not in usages:
        problems.append("not for an endorsement key")
    bits = own.usage
    if bits is None or not (bits.key_encipherment or bits.key_agreement):
        problems.append("not for encryption")
    if bits is not None and (bits.key_cert_sign or bits.crl_sign):
        problems.append("for signing certificates")
    if own.constraints is not None and own.constraints.ca:
        problems.append("an authority's")
    checks.demand(
        "tpm.ek.usage",
        expected=f"extended key usage {EK_USAGE.dotted_string}, key encipherment or agreement, no authority",
        actual=", ".join(problems) or "as expected",
        holds=not problems,
    )


def _examine_maker(own: Certificate, checks: Checks) -> None:
    """The subject alternative name says who made which TPM; it is critical where there is no subject (RFC 5280)."""
    found: dict[str, str] = {}
    twice = False
    extension = next((item for item in own.extensions if isinstance(item.value, x509.SubjectAlternativeName)), None)
    names = extension.value.get_values_for_type(x509.DirectoryName) if extension is not None else []
    for attribute in (attribute for name in names for attribute in name):
        word = _MAKER.get(attribute.oid)
        if word is not None:
            twice |= word in found
            found[word] = printable(str(attribute.value))
    subjectless = len(own.subject) == 2  # an empty SEQUENCE
    loose = subjectless and extension is not None and not extension.critical
    missing = [word for word in _MAKER.values() if word not in found]
    problem = f"no {missing[0]}" if missing else "one of them twice" if twice else "not critical" if loose else ""
    holds = checks.demand(
        "tpm.ek.maker",
        expected="manufacturer, model and version, once each",
        actual=problem or " ".join(found.values()),
        holds=not problem,
    )
    if holds:
        for word, value in found.items():
            checks.claim(f"tpm.{word}", value)


def _examine_chain(
    own: Certificate, intermediates: tuple[bytes, ...], trust: EkTrust, now: int, checks: Checks
) -> None:
    try:
        given = tuple(certificate.load(data, "an intermediate certificate") for data in intermediates)
        path = certificates.chain(own, trust.intermediates + given, trust.roots, _WHAT)
    except TamperingError as problem:
        checks.refuse("tpm.ek.chain", problem, "a chain to one of the given roots")
        return
    checks.chain = tuple(one.link for one in path)
    checks.demand("tpm.ek.chain", expected="a chain to a root", actual=f"{len(path)} certificates", holds=True)
    chain_checks.demand_validity("tpm.ek.validity", path, now, _WHAT, checks)
    unlisted = "the caller gave no revocation list of these issuers"
    chain_checks.judge_revocation(
        "tpm.ek.revocation", path, trust.revocation, checks, now=now, what=_WHAT, unlisted=unlisted
    )
