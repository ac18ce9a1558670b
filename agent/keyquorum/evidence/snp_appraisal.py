# SPDX-License-Identifier: Apache-2.0
"""The whole appraisal of a report of SEV-SNP: policy, verification, reference values (docs/attestation-snp.md §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.evidence import signed_policy, snp_checks, snp_policy, snp_verify
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import printable
from keyquorum.evidence.snp_report import WITH_MITIGATIONS, tcb_text

if TYPE_CHECKING:
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.signed_policy import SignedPolicy
    from keyquorum.evidence.snp_chain import SnpTrust
    from keyquorum.evidence.snp_policy import SnpReference
    from keyquorum.evidence.snp_report import Report
    from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence, VerifiedReport

TECHNOLOGY = "snp"
_ALWAYS_SET, _KNOWN_POLICY = 1 << 17, (1 << 26) - 1


def appraise(
    evidence: SnpEvidence, challenge: SnpChallenge, trust: SnpTrust, policy: SignedPolicy, now: int
) -> AttestationResult:
    """Return what the evidence is worth at the instant `now` (seconds since 1970); never raises for bad evidence."""
    checks = Checks(snp_checks.REFERENCES)
    examine(evidence, challenge, trust, policy, now=now, checks=checks)
    return checks.conclude(TECHNOLOGY, now, snp_checks.REPORT)


def examine(
    evidence: SnpEvidence, challenge: SnpChallenge, trust: SnpTrust, policy: SignedPolicy, *, now: int, checks: Checks
) -> None:
    """Note every check of a report."""
    reference = signed_policy.accept(policy, snp_policy.REFERENCE_TYPE, snp_policy.parse, now, checks)
    if reference is not None:
        found = snp_verify.verify(evidence, challenge, trust, now, checks)
        if found is not None:
            judge(found, reference, checks)
            _claim(found, checks)


def judge(found: VerifiedReport, reference: SnpReference, checks: Checks) -> None:
    """Note every check of a verified report against reference values."""
    _judge_origin(found, reference, checks)
    _judge_tcb(found, reference, checks)
    _judge_guest_policy(found.report, reference, checks)
    _judge_platform(found.report, reference, checks)
    _judge_guest(found.report, reference, checks)
    _judge_chip(found.report, reference, checks)


def _judge_origin(found: VerifiedReport, reference: SnpReference, checks: Checks) -> None:
    version = found.report.version
    shown = " or ".join(map(str, sorted(reference.versions)))
    holds = version in reference.versions
    checks.demand("snp.version.allowed", expected=shown, actual=str(version), holds=holds)
    shown = " or ".join(sorted(reference.signers))
    holds = found.signer in reference.signers
    checks.demand("snp.signer.allowed", expected=shown, actual=found.signer, holds=holds)
    if not found.provider:
        checks.waive("snp.provider.allowed", "the chip's own key signed")
    elif reference.providers is None:
        checks.waive("snp.provider.allowed", "the policy takes any provider", printable(found.provider))
    else:
        shown = ", ".join(sorted(reference.providers)) or "no provider"
        holds = found.provider in reference.providers
        checks.demand("snp.provider.allowed", expected=shown, actual=printable(found.provider), holds=holds)
    shown = " or ".join(sorted(reference.products))
    holds = found.product in reference.products
    checks.demand("snp.product.allowed", expected=shown, actual=found.product, holds=holds)


def _at_least(found: dict[str, int], lowest: dict[str, int]) -> bool:
    """Compare component by component; a high microcode does not make up for a low boot loader."""
    return all(found[component] >= level for component, level in lowest.items())


def _judge_tcb(found: VerifiedReport, reference: SnpReference, checks: Checks) -> None:
    lower = {"reported": found.tcb, "committed": found.committed, "launch": found.launch}
    wrong = ", ".join(name for name, tcb in lower.items() if not _at_least(found.current, tcb))
    current = f"the current TCB version ({tcb_text(found.current)})"
    checks.demand(
        "snp.tcb.order",
        expected=f"nothing above {current}",
        actual=f"above it: {wrong}" if wrong else "nothing above it",
        holds=not wrong,
    )
    _judge_commitment(found, reference, checks)
    product = reference.products.get(found.product)
    if product is None:
        return
    lowest = dict(product.tcb)
    for name, tcb in (("snp.tcb.minimum", found.tcb), ("snp.tcb.launch", found.launch)):
        holds = _at_least(tcb, lowest)
        checks.demand(name, expected=f"at least {tcb_text(lowest)}", actual=tcb_text(tcb), holds=holds)
    report = found.report
    vectors = f"{report.launch_mitigations:#x} at launch, {report.current_mitigations:#x} now"
    if product.mitigations is None:
        checks.waive("snp.tcb.mitigations", "the policy asks for no mitigations", vectors)
        return
    had = report.launch_mitigations & report.current_mitigations
    checks.demand(
        "snp.tcb.mitigations",
        expected=f"all of {product.mitigations:#x}",
        actual=vectors if report.version >= WITH_MITIGATIONS else "none are in this version of the report",
        holds=product.mitigations & ~had == 0,
    )


def _judge_commitment(found: VerifiedReport, reference: SnpReference, checks: Checks) -> None:
    """Firmware that is not committed may be taken back to an older one while the guest runs."""
    report = found.report
    committed = f"{tcb_text(found.committed)}; firmware {_firmware(report.committed_firmware)}"
    current = f"{tcb_text(found.current)}; firmware {_firmware(report.firmware)}"
    if reference.provisional:
        checks.waive("snp.tcb.provisional", "the policy takes firmware that is not committed", current)
        return
    checks.demand("snp.tcb.provisional", expected=committed, actual=current, holds=committed == current)


def _firmware(version: tuple[int, int, int]) -> str:
    return f"{version[0]}.{version[1]}.{version[2]}"


def _judge_guest_policy(report: Report, reference: SnpReference, checks: Checks) -> None:
    policy = report.policy
    checks.demand(
        "snp.policy.reserved",
        expected="bit 17 set, bits 26 to 63 clear",
        actual=f"{policy:#x}",
        holds=bool(policy & _ALWAYS_SET) and not policy & ~_KNOWN_POLICY,
    )
    abi = (policy >> 8 & 0xFF, policy & 0xFF)
    checks.demand(
        "snp.policy.abi",
        expected=f"at least {reference.abi[0]}.{reference.abi[1]}",
        actual=f"{abi[0]}.{abi[1]}",
        holds=abi >= reference.abi,
    )
    for word, (bit, safe, wish) in snp_policy.GUEST_BITS.items():
        shown = ("required" if policy >> bit & 1 else "not required") if safe else _allowed(policy >> bit & 1)
        _judge_bit(f"snp.policy.{word}", (wish, shown, bool(policy >> bit & 1) == safe), reference, checks)


def _allowed(bit: int) -> str:
    return "allowed" if bit else "forbidden"


def _judge_bit(name: str, found: tuple[str, str, bool], reference: SnpReference, checks: Checks) -> None:
    """`found`: the wish in a word, what is there in a word, and whether that is the safe one."""
    wish, shown, safe = found
    if name in reference.demanded:
        checks.demand(name, expected=wish, actual=shown, holds=safe)
    else:
        checks.waive(name, "the policy does not ask", shown)


def _judge_platform(report: Report, reference: SnpReference, checks: Checks) -> None:
    info = report.platform
    for word, (bit, safe, wish) in snp_policy.PLATFORM_BITS.items():
        shown = "on" if info >> bit & 1 else "off"
        _judge_bit(f"snp.platform.{word}", (wish, shown, bool(info >> bit & 1) == safe), reference, checks)
    unknown = info & ~snp_policy.KNOWN_PLATFORM
    checks.demand(
        "snp.platform.unknown",
        expected=f"no bits but {reference.unknown_platform:#x}" if reference.unknown_platform else "none",
        actual=f"{unknown:#x}" if unknown else "none",
        holds=unknown & ~reference.unknown_platform == 0,
    )


def _judge_guest(report: Report, reference: SnpReference, checks: Checks) -> None:
    shown = " or ".join(map(str, sorted(reference.vmpl)))
    checks.demand("snp.vmpl", expected=shown, actual=str(report.vmpl), holds=report.vmpl in reference.vmpl)
    values = {
        "measurement": report.measurement,
        "host-data": report.host_data,
        "family-id": report.family_id,
        "image-id": report.image_id,
        "id-key": report.id_key_digest,
        "author-key": report.author_key_digest,
    }
    for word, value in values.items():
        listed = reference.values[word]
        if listed is None:
            checks.waive(f"snp.{word}", "the policy takes any", value.hex())
            continue
        # Without an author key its digest says nothing: only all zeros may stand for that.
        told = word != "author-key" or report.author_key == any(value)
        checks.demand(f"snp.{word}", expected=_list(listed), actual=value.hex(), holds=value in listed and told)
    checks.demand(
        "snp.guest-svn",
        expected=f"at least {reference.guest_svn}",
        actual=str(report.guest_svn),
        holds=report.guest_svn >= reference.guest_svn,
    )


def _list(listed: frozenset[bytes]) -> str:
    return next(iter(listed)).hex() if len(listed) == 1 else f"one of {len(listed)} listed"


def _judge_chip(report: Report, reference: SnpReference, checks: Checks) -> None:
    found = report.chip_id.hex()
    if reference.chips is None:
        checks.waive("snp.chip.listed", "the policy takes any chip", found)
    else:
        holds = report.chip_id in reference.chips and any(report.chip_id)
        checks.demand("snp.chip.listed", expected=_list(reference.chips), actual=found, holds=holds)
    denied = report.chip_id in reference.denied_chips
    checks.demand("snp.chip.denied", expected="not on the list of bad chips", actual=found, holds=not denied)


def _claim(found: VerifiedReport, checks: Checks) -> None:
    report = found.report
    claims = {
        "product": found.product,
        "signer": found.signer,
        "provider": found.provider,
        "version": str(report.version),
        "chip-id": report.chip_id.hex(),
        "tcb": tcb_text(found.tcb),
        "firmware": _firmware(report.firmware),
        "measurement": report.measurement.hex(),
        "host-data": report.host_data.hex(),
        "id-key": report.id_key_digest.hex(),
        "family-id": report.family_id.hex(),
        "image-id": report.image_id.hex(),
        "guest-svn": str(report.guest_svn),
        "vmpl": str(report.vmpl),
        "guest-policy": f"{report.policy:#x}",
        "platform": f"{report.platform:#x}",
        "report-id": report.report_id.hex(),
    }
    for name, value in claims.items():
        if value:
            checks.claim(f"snp.{name}", value)
