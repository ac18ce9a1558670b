# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of AMD SEV-SNP reports."""

from __future__ import annotations

WORDS = {
    "snp.report.size": "A report has exactly 1184 bytes. Anything else was cut, or is something else.",
    "snp.report.version": (
        "The report is laid out in a way that this program knows. A field read at the wrong place means anything."
    ),
    "snp.report.algorithm": "The report says that it is signed by the one method that AMD uses.",
    "snp.report.reserved": "What has no meaning yet is zero. A bit that nobody here understands might weaken the rest.",
    "snp.chain.certificates": (
        "Three certificates came with the report: the chip's, AMD's intermediate one, AMD's root. Without them nobody "
        "vouches for the signature."
    ),
    "snp.chain.root": (
        "The root certificate is AMD's own, known to this program by its fingerprint. All trust hangs on it."
    ),
    "snp.chain.intermediate": (
        "The certificate between root and chip is one that AMD published, known by its fingerprint."
    ),
    "snp.chain.signatures": "Each certificate is signed by the next one up. A forged link would break here.",
    "snp.chain.role": (
        "The report says which key signed it, a single chip's (VCEK) or a cloud's (VLEK), and the certificates are for "
        "just that key. Otherwise a cloud's key could pass for a chip's."
    ),
    "snp.chain.validity": "All certificates are valid at this instant.",
    "snp.chain.revocation": "AMD has not revoked the intermediate certificate.",
    "snp.product": (
        "Report, certificate and root are of the same generation of processors. They differ in what their version "
        "numbers mean."
    ),
    "snp.certificate.tcb": (
        "The certificate was issued for exactly the firmware versions that the report names. The chip has another key "
        "for every version, so old firmware cannot pass for new."
    ),
    "snp.certificate.chip": "The certificate was issued for the very chip that the report is from.",
    "snp.certificate.provider": "A cloud's key names the cloud and no chip; a chip's key names no cloud.",
    "snp.chip.masked": (
        "The chip's own key was in use. If it is masked, the firmware signed with nothing worth the name."
    ),
    "snp.chip.same": "The machine is on the chip on which it was before. A move to another one would be noticed here.",
    "snp.signature.structure": (
        "The signature consists of two numbers in the allowed range. Degenerate ones must not count."
    ),
    "snp.signature.value": "The key of the certificate signed this report. One changed bit, and it does not fit.",
    "snp.report-data": (
        "The report carries the 64 bytes that were asked for, so it was made for this question and is not a recording."
    ),
    "snp.version.allowed": "The policy takes reports of this version. Old ones do not say which processor they are of.",
    "snp.signer.allowed": "The policy takes the kind of key that signed: a chip's own, or a cloud's.",
    "snp.provider.allowed": "The cloud whose key signed is one that the policy names.",
    "snp.product.allowed": "The policy has this generation of processors. Some have weaknesses that no update mends.",
    "snp.tcb.order": (
        "No version that the report names is above the one in use now. Otherwise the report contradicts itself."
    ),
    "snp.tcb.minimum": (
        "Each part of the firmware is at least as new as the policy wants. They are compared one by one, so that new "
        "microcode does not make up for an old boot loader."
    ),
    "snp.tcb.launch": (
        "The firmware was new enough also when the machine started. An update afterwards does not undo what happened "
        "before."
    ),
    "snp.tcb.provisional": (
        "The firmware in use is committed: the host can no longer go back to an older one while the machine runs."
    ),
    "snp.tcb.mitigations": "The countermeasures that the policy names are in force, at the start and now.",
    "snp.policy.reserved": "The rules that the machine was started under have only bits that are known.",
    "snp.policy.abi": "The machine demanded firmware with at least this interface when it was started.",
    "snp.policy.smt": "The machine must not share a core with a second thread, whose neighbour could listen in.",
    "snp.policy.migration": "The machine cannot be moved by a migration agent, which would get to see its memory.",
    "snp.policy.debug": (
        "The host may not debug the machine. With debugging on it reads the whole memory, and all protection is for "
        "show."
    ),
    "snp.policy.single-socket": "The machine stays on one processor, so its data do not cross the wires between two.",
    "snp.policy.cxl": (
        "No memory or device is attached by CXL, where it would be outside of the processor's protection."
    ),
    "snp.policy.aes-256-xts": "Memory is encrypted with the longer key.",
    "snp.policy.rapl-off": "Power readings are off. From them secrets can be guessed.",
    "snp.policy.ciphertext-hiding": (
        "The host cannot even see the encrypted memory. From how it changes secrets can be guessed."
    ),
    "snp.policy.page-swap-off": (
        "The host may not move or swap pages of the machine, by which it could watch what is used when."
    ),
    "snp.platform.smt": "Threads that share a core are switched off on the whole platform.",
    "snp.platform.ecc": "Memory notices flipped bits (ECC), which makes attacks by disturbing rows of memory harder.",
    "snp.platform.rapl-off": "Power readings are switched off on the whole platform.",
    "snp.platform.ciphertext-hiding": "The platform hides encrypted memory from the host.",
    "snp.platform.alias-check": (
        "The platform looked whether two addresses lead to the same memory. With a manipulated memory module "
        "(BadRAM) they do, and the host gets in by the second one."
    ),
    "snp.platform.unknown": "The platform has no properties that neither this program nor the policy knows.",
    "snp.vmpl": "The report was asked for at the privilege level that the policy takes; 0 is the highest.",
    "snp.measurement": (
        "The memory that the machine started with is the expected one, firmware and all, by its digest. This is what "
        "tells your machine from any other on such a chip."
    ),
    "snp.host-data": "What the host gave the machine at its start is what the policy expects.",
    "snp.guest-svn": "The image says of itself that it is at least of this security version.",
    "snp.family-id": "The image belongs to a family that the policy names.",
    "snp.image-id": "The image has an identity that the policy names.",
    "snp.id-key": "The image was signed by a key that the policy names, before it was started.",
    "snp.author-key": (
        "That key itself was signed by an author that the policy names; without an author there is none to name."
    ),
    "snp.chip.listed": "The machine runs on one of your listed chips, and not on somebody's in a garage.",
    "snp.chip.denied": "The chip is not on the list of those that are known to be broken or stolen.",
}
