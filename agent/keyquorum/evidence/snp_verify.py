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
from keyquorum.evidence import snp_chain, snp_report
from keyquorum.evidence.snp_chain import SIGNERS

if TYPE_CHECKING:
    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.snp_certificates import Leaf
    from keyquorum.evidence.snp_chain import SnpTrust
    from keyquorum.evidence.snp_report import Report

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973  # of P-384
_COORDINATE = 72  # bytes, little-endian, of which 48 can be something


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """What a guest sent: its report, and in DER the certificates of the chip's key (VCEK or VLEK), of ASK or ASVK, ARK.

    More or fewer than three certificates, or another order, is refused.
    """

    report: bytes
    certificates: tuple[bytes, ...]


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
    examined = snp_chain.examine(evidence.certificates, report, trust, now, checks)
    if examined is None:
        return None
    leaf, product = examined
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
    return _verified(report, product, SIGNERS[report.signing_key], leaf.provider, checks)


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
