# SPDX-License-Identifier: Apache-2.0
"""Chains of X.509 certificates of evidence: building the short one to a given root, and judging it (RFC 5280 §6).

`cryptography` has a path validation of its own, but it is shaped for TLS servers. What evidence has are fixed short
chains; every algorithm, every critical extension and every instant is looked at here. No clock, no store of roots.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from keyquorum.errors import TamperingError
from keyquorum.evidence.certificate import UNREADABLE

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate, RevocationList

MAX_INTERMEDIATES = 8
_MAX_DEPTH = 4  # certificates below the root
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MIN_RSA = 2048
_PROCESSED = frozenset({
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
})  # fmt: skip


def instant(now: int) -> dt.datetime:
    """Return seconds since 1970 as `cryptography` compares them."""
    return dt.datetime.fromtimestamp(now, dt.UTC)


def chain(
    leaf: Certificate, intermediates: tuple[Certificate, ...], roots: tuple[Certificate, ...], what: str
) -> tuple[Certificate, ...]:
    """Return leaf, intermediates and root in order; raises `TamperingError` when no root issued it.

    Instants and revocation are the business of `check_validity` and `Lookup`.
    """
    _check_extensions(leaf, what)
    if len(intermediates) > MAX_INTERMEDIATES:
        raise TamperingError(what, "", f"{len(intermediates)} intermediates are more than {MAX_INTERMEDIATES}")
    found = _climb((leaf,), intermediates, roots)
    if found is None:
        raise TamperingError(what, "", f"no given root, nor an intermediate below one, issued {leaf.subject_text}")
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
        candidate.subject != certificate.issuer
        or not may_issue(candidate, below)
        or not _strong(certificate, candidate)
    ):
        return False
    try:
        certificate.parsed.verify_directly_issued_by(candidate.parsed)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def may_issue(candidate: Certificate, below: int) -> bool:
    """Say whether a certificate is an authority's that may sign certificates, with `below` authorities under it."""
    try:
        _check_extensions(candidate, "an authority")
    except TamperingError:
        return False
    constraints, usage = candidate.constraints, candidate.usage
    if constraints is None or usage is None:
        return False
    short = constraints.path_length is None or below <= constraints.path_length
    return constraints.ca and short and usage.key_cert_sign


def _strong(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        algorithm, key = certificate.parsed.signature_hash_algorithm, issuer.key
    except UNREADABLE:
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
        if not one.starts <= moment <= one.ends:
            span = f"{one.starts:%Y-%m-%d} to {one.ends:%Y-%m-%d}"
            raise TamperingError(what, "", f"{one.subject_text} is valid from {span}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Lists that were given, and whether every issuer must have one."""

    lists: tuple[RevocationList, ...] = ()
    demanded: bool = False


class Lookup:
    """Looking certificates up in the lists that count at an instant.

    A list counts if the issuer signed it and it is current. One that does not count is as bad as one that is missing.
    Each is judged once for an issuer, however many of the issuer's certificates are looked up.
    """

    def __init__(self, revocation: Revocation, now: int) -> None:
        self._revocation = revocation
        self._now = now
        self._judged: dict[Certificate, tuple[RevocationList, ...]] = {}

    def check(self, path: tuple[Certificate, ...], what: str) -> int:
        """Return how many certificates of a chain were looked up; raises `TamperingError` if one is revoked."""
        looked_up = 0
        for one, issuer in pairwise(path):
            if not any(given.issuer == issuer.subject for given in self._revocation.lists):
                if self._revocation.demanded:
                    raise TamperingError(what, "", f"no revocation list of the issuer of {one.subject_text}")
                continue
            valid = self._valid(issuer)
            if not valid:
                raise TamperingError(what, "", f"no valid revocation list of the issuer of {one.subject_text}")
            if any(given.parsed.get_revoked_certificate_by_serial_number(one.serial) is not None for given in valid):
                found = f"{one.subject_text} with the serial number {one.serial:x}"
                raise TamperingError(what, "", f"{found} is revoked")
            looked_up += 1
        return looked_up

    def _valid(self, issuer: Certificate) -> tuple[RevocationList, ...]:
        if issuer not in self._judged:
            own = [given for given in self._revocation.lists if given.issuer == issuer.subject]
            self._judged[issuer] = tuple(given for given in own if _current(given, issuer, self._now))
        return self._judged[issuer]


def _current(one: RevocationList, issuer: Certificate, now: int) -> bool:
    moment = instant(now)
    try:
        signed = one.parsed.is_signature_valid(issuer.key)  # type: ignore[arg-type]  # other kinds raise TypeError
    except UNREADABLE:
        return False
    signs = issuer.usage is not None and issuer.usage.crl_sign
    known = not any(extension.critical for extension in one.extensions)
    strong = isinstance(one.parsed.signature_hash_algorithm, _STRONG)
    return signed and known and strong and signs and one.ends is not None and one.starts <= moment <= one.ends
