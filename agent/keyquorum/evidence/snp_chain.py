# SPDX-License-Identifier: Apache-2.0
"""From a report's certificates to a pinned root, and whether they are of the key that signed it.

Pure: anchors, revocation lists and the instant are arguments (docs/attestation-snp.md §3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import chain_checks, snp_certificates, snp_report
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.result import printable
from keyquorum.evidence.snp_report import SIGNED_BY_VCEK, SIGNED_BY_VLEK, TURIN

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.snp_certificates import Anchor, Leaf
    from keyquorum.evidence.snp_report import Report

NO_LISTS = Revocation()
SIGNERS = {SIGNED_BY_VCEK: "vcek", SIGNED_BY_VLEK: "vlek"}
_TURIN_ID = 8
_CHAIN_WHAT = "the certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpTrust:
    """Whose word counts: the pinned roots (`snp_certificates.AMD`), and revocation lists of the roots."""

    anchors: tuple[Anchor, ...]
    revocation: Revocation = NO_LISTS


def examine(
    given: tuple[bytes, ...], report: Report, trust: SnpTrust, now: int, checks: Checks
) -> tuple[Leaf, str] | None:
    """Note every check of the certificates; returns the chip's, and the product whose root is pinned ("": none).

    Returns None if they cannot be read. What failed is in `checks` only: the caller looks there.
    """
    chain = _load(given, checks)
    if chain is None:
        return None
    leaf = chain[0]
    product = _check_anchor(given, trust, checks)
    if _check_signatures(chain, checks) and product:
        checks.chain = snp_certificates.links(*chain)
    signer = _check_role(report, chain, product, checks)
    _check_time(chain, trust, now, checks)
    _check_product(report, leaf, product, checks)
    _check_hardware(report, leaf, signer, product, checks)
    return leaf, product


def _load(given: tuple[bytes, ...], checks: Checks) -> tuple[Leaf, Certificate, Certificate] | None:
    expected = "the certificates of VCEK or VLEK, of ASK or ASVK, and of ARK"
    if len(given) != 3:
        checks.demand("snp.chain.certificates", expected=expected, actual=f"{len(given)} of them", holds=False)
        return None
    try:
        leaf = snp_certificates.load_leaf(given[0], "the chip's certificate")
        intermediate = snp_certificates.load_authority(given[1], "the intermediate certificate")
        root = snp_certificates.load_authority(given[2], "the root certificate")
    except TamperingError as problem:
        checks.demand("snp.chain.certificates", expected=expected, actual=problem.message, holds=False)
        return None
    checks.demand("snp.chain.certificates", expected=expected, actual="all three", holds=True)
    return leaf, intermediate, root


def _check_anchor(given: tuple[bytes, ...], trust: SnpTrust, checks: Checks) -> str:
    """Return the product whose root is pinned, "" if none is."""
    _, between, found = map(snp_certificates.fingerprint, given)
    anchor = next((one for one in trust.anchors if one.root == found), None)
    products = " or ".join(one.product for one in trust.anchors) or "nothing"
    checks.demand(
        "snp.chain.root",
        expected=f"the pinned root of {products}",
        actual=f"that of {anchor.product}" if anchor else found,
        holds=anchor is not None,
    )
    if anchor is not None and not anchor.intermediates:
        checks.waive("snp.chain.intermediate", "the caller pinned none", between)
    else:
        checks.demand(
            "snp.chain.intermediate",
            expected="a pinned authority below this root",
            actual=between,
            holds=anchor is not None and between in anchor.intermediates,
        )
    return anchor.product if anchor else ""


def _check_signatures(chain: tuple[Leaf, Certificate, Certificate], checks: Checks) -> bool:
    expected = "each by the next, RSA-PSS with SHA-384"
    leaf, intermediate, root = chain
    try:
        snp_certificates.check_intermediate(intermediate, root, _CHAIN_WHAT)
        snp_certificates.check_leaf(leaf, intermediate, _CHAIN_WHAT)
    except TamperingError as problem:
        checks.refuse("snp.chain.signatures", problem, expected)
        return False
    return checks.demand("snp.chain.signatures", expected=expected, actual=expected, holds=True)


def _check_role(
    report: Report, chain: tuple[Leaf, Certificate, Certificate], product: str, checks: Checks
) -> int | None:
    """The report says which key signed it; certificates of that key, and of no other, and of one product."""
    role, named = snp_certificates.roles(*chain)
    shown = f"{SIGNERS[role].upper()} of {named}" if role is not None else "names that do not go together"
    wanted = SIGNERS.get(report.signing_key, "").upper()
    checks.demand(
        "snp.chain.role",
        expected=f"certificates of a {wanted} of {product or 'a pinned product'}" if wanted else "a signing key",
        actual=shown if wanted else f"signing key {report.signing_key}",
        holds=role == report.signing_key and named == product,
    )
    return role


def _check_time(chain: tuple[Leaf, Certificate, Certificate], trust: SnpTrust, now: int, checks: Checks) -> None:
    leaf, *authorities = chain
    chain_checks.demand_validity("snp.chain.validity", (leaf.certificate, *authorities), now, _CHAIN_WHAT, checks)
    # A chip's key has no serial number of its own to be revoked by.
    unlisted, revocable = "the caller gave no revocation list of this root", tuple(authorities)
    chain_checks.judge_revocation(
        "snp.chain.revocation", revocable, trust.revocation, checks, now=now, what=_CHAIN_WHAT, unlisted=unlisted
    )


def _check_product(report: Report, leaf: Leaf, product: str, checks: Checks) -> None:
    """Family and model, the chip's certificate and the root speak of one product; version 2 cannot tell, on Turin."""
    told = snp_report.product(report.fms) if report.fms else product if product != TURIN else ""
    fms = " ".join(f"{part:#04x}" for part in report.fms) or "not in this version"
    checks.demand(
        "snp.product",
        expected=product or "a product with a pinned root",
        actual=f"{told or 'not known'} by the report ({fms}), {printable(leaf.product)} by the certificate",
        holds=bool(product) and told == leaf.product == product,
    )


def _check_hardware(report: Report, leaf: Leaf, signer: int | None, product: str, checks: Checks) -> None:
    """The certificate is of a key that the chip derives at the reported TCB version, and of this chip (VCEK)."""
    try:
        tcb = snp_report.components(report.tcb, product, "the report") if product else {}
        expected = snp_report.tcb_text(tcb)
    except TamperingError as problem:
        tcb, expected = {}, problem.problem
    checks.demand(
        "snp.certificate.tcb",
        expected=expected or "a TCB version of a known product",
        actual=snp_report.tcb_text(leaf.tcb),
        holds=bool(tcb) and leaf.tcb == tcb,
    )
    if signer == SIGNED_BY_VLEK:
        checks.waive("snp.certificate.chip", "a VLEK is the provider's key on many chips", report.chip_id.hex())
        checks.waive("snp.chip.masked", "the provider's key signs, not the chip's")
        checks.demand(
            "snp.certificate.provider",
            expected="a provider's name, and no chip's",
            actual=printable(leaf.provider),
            holds=bool(leaf.provider) and not leaf.hardware_id,
        )
        return
    size = _TURIN_ID if product == TURIN else len(report.chip_id)
    checks.demand(
        "snp.certificate.chip",
        expected=report.chip_id.hex(),
        actual=leaf.hardware_id.hex() or "no chip",
        holds=any(report.chip_id)
        and len(leaf.hardware_id) == size
        and report.chip_id == leaf.hardware_id.ljust(len(report.chip_id), b"\0"),
    )
    masked = "masked" if report.masked_chip_key else "in use"
    checks.demand("snp.chip.masked", expected="in use", actual=masked, holds=not report.masked_chip_key)
    if leaf.provider:
        checks.demand("snp.certificate.provider", expected="none", actual=printable(leaf.provider), holds=False)
    else:
        checks.waive("snp.certificate.provider", "a VCEK is of no provider")
