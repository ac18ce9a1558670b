# SPDX-License-Identifier: Apache-2.0
"""Verifying a quote of SGX or TDX: whose platform signed what (docs/attestation-intel.md §2).

A platform's certificate vouches for its quoting enclave, the quoting enclave for an attestation key, and that key for
the quote. Collateral, which says what the platform is worth, is `intel_standing`'s.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import TamperingError
from keyquorum.evidence import chain_checks, intel_certificates, intel_quote, intel_signature
from keyquorum.evidence.intel_certificates import INTEL_ROOTS, PCK

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.intel_bundle import Collateral
    from keyquorum.evidence.intel_certificates import Platform, Roles
    from keyquorum.evidence.intel_quote import Quote

_DEBUG = 1 << 1
_CHAIN = "the certificates of the platform"
_EXPECTED = {
    "version": "one of " + ", ".join(map(str, intel_quote.VERSIONS)),
    "key-type": f"type {intel_quote.ECDSA_P256}, ECDSA on P-256",
    "tee": "type 0x0 (SGX), or 0x81 (TDX) from version 4 on",
    "vendor": intel_quote.VENDOR.hex(),
    "body": "a body that belongs to version and TEE, reserved fields zero",
    "certification": f"type {intel_quote.CERTIFICATE_CHAIN}, from version 4 on inside type {intel_quote.QE_REPORT}",
}


class Chain(NamedTuple):
    """Which chain: its part of the checks' names, the roles in it, and certificates that were read already."""

    part: str
    roles: Roles
    known: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelEvidence:
    """What a machine sent: its quote, and the event log (CCEL) of a trust domain ("" for none).

    Intel's collateral for it may be from whomever; it is believed by its signature.
    """

    quote: bytes
    collateral: Collateral | None
    log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelTrust:
    """What the caller knows: pinned roots, and the highest tcbEvaluationDataNumber that it has accepted before."""

    roots: frozenset[bytes] = INTEL_ROOTS
    evaluation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """A quote whose signatures hold up to a pinned root, and the platform that made it; `path` is leaf to root."""

    quote: Quote
    platform: Platform
    path: tuple[Certificate, ...]


def verify(
    evidence: IntelEvidence, report_data: bytes, trust: IntelTrust, now: int, checks: Checks
) -> VerifiedQuote | None:
    """Return the quote if every signature up to a pinned root holds, or None; every step is noted in `checks`.

    What is returned is authentic. Whether it is fresh, and its certificates in force, is in the checks.
    """
    quote = _parse(evidence.quote, checks)
    if quote is None:
        return None
    found = _platform(quote, trust, now, checks)
    if found is None or not _quoting_enclave(quote, found.path[0], checks) or not _signature(quote, checks):
        return None
    same = hmac.compare_digest(quote.body.report_data, report_data)
    checks.demand(
        "intel.quote.report-data", expected=report_data.hex(), actual=quote.body.report_data.hex(), holds=same
    )
    return found


def _parse(data: bytes, checks: Checks) -> Quote | None:
    try:
        quote = intel_quote.parse(data)
    except TamperingError as problem:
        expected = _EXPECTED.get(problem.where)
        if expected is None:
            checks.refuse("intel.quote.structure", problem, "every length within the quote")
        else:
            checks.demand(f"intel.quote.{problem.where}", expected=expected, actual=problem.problem, holds=False)
        return None
    for name, expected in _EXPECTED.items():
        checks.demand(f"intel.quote.{name}", expected=expected, actual=f"{quote.tee} {quote.version}", holds=True)
    size = len(data) - len(quote.fill)
    checks.demand("intel.quote.structure", expected="every length within", actual=f"{size} bytes", holds=True)
    checks.demand(
        "intel.quote.fill",
        expected="nothing but zero bytes after the end",
        actual=f"{len(quote.fill)} bytes, {'all' if not any(quote.fill) else 'not all'} zero",
        holds=not any(quote.fill),
    )
    return quote


def _platform(quote: Quote, trust: IntelTrust, now: int, checks: Checks) -> VerifiedQuote | None:
    path = examine_chain(quote.certificates, trust.roots, Chain("pck", PCK), now, checks)
    if path is None:
        return None
    checks.chain = tuple(one.link for one in path)
    try:
        found = intel_certificates.platform(path[0], "the PCK certificate")
    except TamperingError as problem:
        checks.refuse("intel.pck.extensions", problem, "FMSPC, PCE-ID, PPID and TCB of the platform")
        return None
    shown = f"FMSPC {found.fmspc.hex()}, PCE-ID {found.pce_id.hex()}"
    checks.demand("intel.pck.extensions", expected="the platform's identity and TCB", actual=shown, holds=True)
    return VerifiedQuote(quote=quote, platform=found, path=path)


def examine_chain(
    pem: bytes, roots: frozenset[bytes], chain: Chain, now: int, checks: Checks
) -> tuple[Certificate, ...] | None:
    """Note chain, role and validity of certificates in PEM.

    Return the path from leaf to root if the signatures and roles hold, valid at the instant or not.
    """
    part = chain.part
    what = _CHAIN if part == "pck" else "the certificates of the signer of collateral"
    try:
        path = intel_certificates.load_chain(pem, roots, chain.roles, what, chain.known)
    except TamperingError as problem:
        name = "role" if problem.where == "role" else "chain"
        expected = "each certificate in its role" if problem.where else "a chain to a pinned root"
        checks.demand(f"intel.{part}.{name}", expected=expected, actual=problem.problem, holds=False)
        return None
    checks.demand(f"intel.{part}.chain", expected="a chain to a pinned root", actual=f"{len(path)} links", holds=True)
    shown = path[0].subject_text
    checks.demand(f"intel.{part}.role", expected="each certificate in its role", actual=shown, holds=True)
    chain_checks.demand_validity(f"intel.{part}.validity", path, now, what, checks)
    return path


def _quoting_enclave(quote: Quote, leaf: Certificate, checks: Checks) -> bool:
    """The platform signed the report of a quoting enclave, which is for this attestation key."""
    expected = "by the key of the PCK certificate"
    try:
        intel_signature.verify(leaf.key, quote.qe_signature, quote.qe_report, "the signature")
    except TamperingError as problem:
        checks.refuse("intel.qe.signature", problem, expected)
        return False
    checks.demand("intel.qe.signature", expected=expected, actual=expected, holds=True)
    bound = hashlib.sha256(quote.key + quote.qe_auth).digest() + bytes(32)
    holds = checks.demand(
        "intel.qe.binding",
        expected=bound.hex(),
        actual=quote.qe.report_data.hex(),
        holds=hmac.compare_digest(quote.qe.report_data, bound),
    )
    debug = bool(quote.qe.flags & _DEBUG)
    return checks.demand("intel.qe.debug", expected="off", actual="on" if debug else "off", holds=not debug) and holds


def _signature(quote: Quote, checks: Checks) -> bool:
    expected = "by the attestation key"
    try:
        key = intel_signature.public_key(quote.key, "the attestation key")
        intel_signature.verify(key, quote.signature, quote.signed, "the signature")
    except TamperingError as problem:
        checks.refuse("intel.quote.signature", problem, expected)
        return False
    return checks.demand("intel.quote.signature", expected=expected, actual=expected, holds=True)
