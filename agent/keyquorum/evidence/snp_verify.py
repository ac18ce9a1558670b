# SPDX-License-Identifier: Apache-2.0
"""Verifying a report of SEV-SNP: report and certificates as they came, to what AMD's root vouches for.

Pure: anchors, revocation lists, the instant and what the report must carry are arguments (docs/attestation-snp.md §3).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificates, snp_certificates, snp_report
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.result import printable
from keyquorum.evidence.snp_report import SIGNED_BY_VCEK, SIGNED_BY_VLEK, TURIN

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.snp_certificates import Anchor, Leaf
    from keyquorum.evidence.snp_report import Report

NO_LISTS = Revocation()
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973  # of P-384
_COORDINATE = 72  # bytes, little-endian, of which 48 can be something
_SIGNERS = {SIGNED_BY_VCEK: "vcek", SIGNED_BY_VLEK: "vlek"}
_TURIN_ID = 8
_CHAIN_WHAT = "the certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """What a guest sent: its report, and in DER the certificates of the chip's key (VCEK or VLEK), of ASK or ASVK, ARK.

    More or fewer than three certificates, or another order, is refused.
    """

    report: bytes
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpTrust:
    """Whose word counts: the pinned roots (`snp_certificates.AMD`), and revocation lists of the roots."""

    anchors: tuple[Anchor, ...]
    revocation: Revocation = NO_LISTS


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpChallenge:
    """What the verifier asked for: the 64 bytes of `binding.report_data`.

    `chip_id` is the chip on which the guest was before, as a trusted result had it; None: any.
    """

    report_data: bytes
    chip_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport:
    """A report that a chip of `product` signed; `signer` is "vcek" or "vlek", `provider` a VLEK's.

    TCB versions by component: `tcb` reported, `current`, `committed`, `launch`.
    """

    report: Report
    product: str
    signer: str
    provider: str
    tcb: dict[str, int]
    current: dict[str, int]
    committed: dict[str, int]
    launch: dict[str, int]


def verify(
    evidence: SnpEvidence, challenge: SnpChallenge, trust: SnpTrust, now: int, checks: Checks
) -> VerifiedReport | None:
    """Return what the report proves, or None; every step is noted in `checks`, also those after one that failed."""
    report = _parse(evidence.report, checks)
    if report is None:
        return None
    chain = _load(evidence.certificates, checks)
    if chain is None:
        return None
    leaf, intermediate, root = chain
    product = _check_anchor(evidence.certificates, trust, checks)
    if _check_signatures(chain, checks) and product:
        checks.chain = snp_certificates.links(leaf, intermediate, root)
    signer = _check_role(report, chain, product, checks)
    _check_time(chain, trust, now, checks)
    _check_product(report, leaf, product, checks)
    _check_hardware(report, leaf, signer, product, checks)
    check_signature(report, leaf, checks)
    checks.demand(
        "snp.report-data",
        expected=challenge.report_data.hex() or "64 bytes",
        actual=report.report_data.hex(),
        holds=hmac.compare_digest(report.report_data, challenge.report_data),
    )
    _check_same_chip(report, challenge, checks)
    if checks.failed:
        return None
    return _verified(report, product, _SIGNERS[report.signing_key], leaf.provider, checks)


def _parse(data: bytes, checks: Checks) -> Report | None:
    names = {
        "size": f"{snp_report.SIZE} bytes",
        "version": " or ".join(map(str, snp_report.VERSIONS)),
        "algorithm": "1, ECDSA P-384 with SHA-384",
        "reserved": "zeros",
    }
    try:
        report = snp_report.parse(data, "the report")
    except TamperingError as problem:
        expected = names[problem.where]
        checks.demand(f"snp.report.{problem.where}", expected=expected, actual=problem.problem, holds=False)
        return None
    found = {"size": f"{len(data)} bytes", "version": str(report.version)}
    for name, expected in names.items():
        checks.demand(f"snp.report.{name}", expected=expected, actual=found.get(name, expected), holds=True)
    return report


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
    shown = f"{_SIGNERS[role].upper()} of {named}" if role is not None else "names that do not go together"
    wanted = _SIGNERS.get(report.signing_key, "").upper()
    checks.demand(
        "snp.chain.role",
        expected=f"certificates of a {wanted} of {product or 'a pinned product'}" if wanted else "a signing key",
        actual=shown if wanted else f"signing key {report.signing_key}",
        holds=role == report.signing_key and named == product,
    )
    return role


def _check_time(chain: tuple[Leaf, Certificate, Certificate], trust: SnpTrust, now: int, checks: Checks) -> None:
    leaf, *authorities = chain
    try:
        certificates.check_validity((leaf.certificate, *authorities), now, _CHAIN_WHAT)
    except TamperingError as problem:
        moment = f"valid at {certificates.instant(now):%Y-%m-%d %H:%M:%S} UTC"
        checks.refuse("snp.chain.validity", problem, moment)
    else:
        checks.demand("snp.chain.validity", expected="valid", actual="valid", holds=True)
    try:  # a chip's key has no serial number of its own to be revoked by
        looked_up = certificates.check_revocation(tuple(authorities), trust.revocation, now, _CHAIN_WHAT)
    except TamperingError as problem:
        checks.refuse("snp.chain.revocation", problem, "not revoked")
        return
    if looked_up:
        checks.demand("snp.chain.revocation", expected="not revoked", actual=f"{looked_up} looked up", holds=True)
    else:
        checks.waive("snp.chain.revocation", "the caller gave no revocation list of this root")


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


def check_signature(report: Report, leaf: Leaf, checks: Checks) -> None:
    """Note whether the key of a chip's certificate signed the report."""
    r, s = (report.signature[start : start + _COORDINATE] for start in (0, _COORDINATE))
    numbers = [int.from_bytes(part, "little") for part in (r, s)]
    well_formed = all(0 < number < _ORDER for number in numbers)
    if not checks.demand(
        "snp.signature.structure",
        expected="two numbers from 1 to below the order of P-384",
        actual="as expected" if well_formed else f"{numbers[0]:#x} and {numbers[1]:#x}",
        holds=well_formed,
    ):
        return
    expected = "by the key of the chip's certificate"
    try:
        leaf.key.verify(encode_dss_signature(*numbers), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        checks.demand("snp.signature.value", expected=expected, actual="not by it, or altered since", holds=False)
        return
    checks.demand("snp.signature.value", expected=expected, actual=expected, holds=True)


def _check_same_chip(report: Report, challenge: SnpChallenge, checks: Checks) -> None:
    found = report.chip_id.hex()
    if challenge.chip_id is None:
        checks.waive("snp.chip.same", "the caller knows no earlier report of this guest", found)
        return
    same = report.chip_id == challenge.chip_id and any(report.chip_id)
    checks.demand("snp.chip.same", expected=challenge.chip_id.hex(), actual=found, holds=same)


def _verified(report: Report, product: str, signer: str, provider: str, checks: Checks) -> VerifiedReport | None:
    """Take the TCB versions apart; what is reserved in them must be zero like elsewhere."""
    versions = (report.tcb, report.current_tcb, report.committed_tcb, report.launch_tcb)
    try:
        tcb, current, committed, launch = (snp_report.components(one, product, "the report") for one in versions)
    except TamperingError as problem:
        checks.refuse("snp.report.reserved", problem, "zeros")
        return None
    return VerifiedReport(
        report=report,
        product=product,
        signer=signer,
        provider=provider,
        tcb=tcb,
        current=current,
        committed=committed,
        launch=launch,
    )
