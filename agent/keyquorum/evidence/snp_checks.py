# SPDX-License-Identifier: Apache-2.0
"""Every check of SEV-SNP evidence by its name, and where it is demanded (docs/attestation-snp.md §4 has the table)."""

from __future__ import annotations

from keyquorum.evidence import tpm_checks

_REPORT = "AMD 56860 ATTESTATION_REPORT"
_POLICY = "AMD 56860 guest policy"
_PLATFORM = "AMD 56860 PLATFORM_INFO"
_TCB = "AMD 56860 TCB_VERSION"
_KDS = "AMD 57230"
_OURS = "docs/attestation-snp.md"

REFERENCES = {
    **{name: place for name, place in tpm_checks.REFERENCES.items() if name.startswith("policy.")},
    "snp.report.size": _REPORT,
    "snp.report.version": _REPORT,
    "snp.report.algorithm": f"{_REPORT}, SIGNATURE_ALGO",
    "snp.report.reserved": _REPORT,
    "snp.chain.certificates": f"{_KDS}, certificates",
    "snp.chain.root": f"{_OURS} §3",
    "snp.chain.intermediate": f"{_OURS} §3",
    "snp.chain.signatures": f"{_KDS}, certificates",
    "snp.chain.role": f"{_REPORT}, SIGNING_KEY",
    "snp.chain.validity": "RFC 5280 §6.1.3",
    "snp.chain.revocation": "RFC 5280 §6.3",
    "snp.product": f"{_REPORT}, CPUID_FAM_ID",
    "snp.certificate.tcb": f"{_KDS}, extensions",
    "snp.certificate.chip": f"{_KDS}, HWID",
    "snp.certificate.provider": f"{_KDS}, CSP_ID",
    "snp.chip.masked": f"{_REPORT}, MASK_CHIP_KEY",
    "snp.signature.structure": "AMD 56860 signature format",
    "snp.signature.value": _REPORT,
    "snp.report-data": f"{_REPORT}, REPORT_DATA",
    "snp.version.allowed": f"{_OURS} §5",
    "snp.signer.allowed": f"{_OURS} §5",
    "snp.provider.allowed": f"{_OURS} §5",
    "snp.product.allowed": f"{_OURS} §5",
    "snp.tcb.order": _TCB,
    "snp.tcb.minimum": _TCB,
    "snp.tcb.launch": f"{_REPORT}, LAUNCH_TCB",
    "snp.tcb.provisional": f"{_REPORT}, COMMITTED_TCB",
    "snp.tcb.mitigations": f"{_REPORT}, CURRENT_MIT_VECTOR",
    "snp.policy.reserved": _POLICY,
    "snp.policy.abi": _POLICY,
    "snp.policy.smt": _POLICY,
    "snp.policy.migration": _POLICY,
    "snp.policy.debug": _POLICY,
    "snp.policy.single-socket": _POLICY,
    "snp.policy.cxl": _POLICY,
    "snp.policy.aes-256-xts": _POLICY,
    "snp.policy.rapl-off": _POLICY,
    "snp.policy.ciphertext-hiding": _POLICY,
    "snp.policy.page-swap-off": _POLICY,
    "snp.platform.smt": _PLATFORM,
    "snp.platform.ecc": _PLATFORM,
    "snp.platform.rapl-off": _PLATFORM,
    "snp.platform.ciphertext-hiding": _PLATFORM,
    "snp.platform.alias-check": _PLATFORM,
    "snp.platform.unknown": _PLATFORM,
    "snp.vmpl": f"{_REPORT}, VMPL",
    "snp.measurement": f"{_REPORT}, MEASUREMENT",
    "snp.host-data": f"{_REPORT}, HOST_DATA",
    "snp.guest-svn": f"{_REPORT}, GUEST_SVN",
    "snp.family-id": f"{_REPORT}, FAMILY_ID",
    "snp.image-id": f"{_REPORT}, IMAGE_ID",
    "snp.id-key": f"{_REPORT}, ID_KEY_DIGEST",
    "snp.author-key": f"{_REPORT}, AUTHOR_KEY_DIGEST",
    "snp.chip.listed": f"{_OURS} §5",
    "snp.chip.denied": f"{_OURS} §5",
    "snp.chip.same": f"{_OURS} §3",
}

# Without all of these there is no trust in a report. What a policy does not ask is among them, as waived.
REPORT = frozenset(REFERENCES)
