# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of Intel's quotes: the quote, the platform that made it, and what Intel says of the platform."""

from __future__ import annotations

WORDS = {
    "intel.quote.structure": "The quote can be read to its end, every part of the size that it says.",
    "intel.quote.version": "The quote is laid out in a way that this program knows.",
    "intel.quote.key-type": "The quote is signed by the one method that this program takes: ECDSA on the curve P-256.",
    "intel.quote.tee": "The quote says what it is of: an enclave (SGX) or a whole machine, a trust domain (TDX).",
    "intel.quote.vendor": "The quote was made by Intel's own quoting enclave, not by somebody's.",
    "intel.quote.body": "What the quote says has the form that belongs to its kind, and nothing in reserved places.",
    "intel.quote.certification": (
        "The quote brings the certificates of its platform. Some quotes only name the platform, which proves nothing."
    ),
    "intel.quote.fill": "Behind the end there is nothing but zeros. Something hidden there would not be signed.",
    "intel.pck.chain": (
        "The platform's certificate (PCK) leads up to Intel's root, known to this program by its fingerprint."
    ),
    "intel.pck.role": "Each certificate is one for its purpose: a platform's key must not vouch for other platforms.",
    "intel.pck.validity": "All certificates of the platform are valid at this instant.",
    "intel.pck.extensions": "The certificate says which platform it is for, and which versions of it.",
    "intel.pck.revocation": "Intel has not revoked the platform's certificate or its issuer, by current lists.",
    "intel.qe.signature": "The platform's key signed the report of the quoting enclave, which makes quotes.",
    "intel.qe.binding": "That report names the key by which this quote is signed. So key and platform belong together.",
    "intel.qe.debug": "The quoting enclave is not debugged. Debugged, it would sign anything.",
    "intel.quote.signature": (
        "The quote is signed by the key that the quoting enclave vouches for. One changed bit, and it does not fit."
    ),
    "intel.quote.report-data": (
        "The quote carries the 64 bytes that were asked for, so it was made for this question and is not a recording."
    ),
    "intel.platform.allowed": "The platform is one of those that the policy lists: yours, and not one in a laboratory.",
    "intel.platform.denied": "Neither this platform nor its whole model is on the policy's list of bad ones.",
    "intel.signer.chain": "Intel's statements about platforms (collateral) are signed under Intel's root.",
    "intel.signer.role": "They are signed by the key that Intel has for such statements, not by a platform's.",
    "intel.signer.validity": "The certificates of that key are valid at this instant.",
    "intel.signer.revocation": "Intel has not revoked that key.",
    "intel.tcb-info.signature": (
        "There is TCB Info, which says what versions of a platform are worth, and Intel signed exactly these bytes."
    ),
    "intel.tcb-info.format": "Every field of it is known. A new field might take back what the others say.",
    "intel.tcb-info.kind": "It is for the kind of protection that the quote is of.",
    "intel.tcb-info.current": (
        "It is in force at this instant. Such statements count for about 30 days; fetch new ones."
    ),
    "intel.tcb-info.floor": (
        "It is not older than one that was seen before. Otherwise an attacker could bring back the time before a "
        "weakness was known."
    ),
    "intel.tcb-info.platform": "It is about the model of this platform, and not about another one.",
    "intel.qe-identity.signature": (
        "There is a statement what a quoting enclave must be (QE Identity), and Intel signed exactly these bytes."
    ),
    "intel.qe-identity.format": "Every field of that statement is known.",
    "intel.qe-identity.kind": "It is for the quoting enclave of this kind of protection.",
    "intel.qe-identity.current": "It is in force at this instant; fetch new ones after about 30 days.",
    "intel.qe-identity.floor": "It is not older than one that was seen before.",
    "intel.qe.identity": "The quoting enclave is the one that Intel describes.",
    "intel.qe.level": "Intel knows the version of the quoting enclave and has not revoked it.",
    "intel.tcb.level": (
        "The platform's versions reach some level that Intel knows. Below all of them nothing is known of it."
    ),
    "intel.tcb.module": "The TDX module, which keeps machines apart, is Intel's and as it should be.",
    "intel.tcb.module-level": "Intel knows the version of the TDX module and has not revoked it.",
    "intel.tcb.status": (
        "By Intel's statement the platform is up to date. Otherwise it has known weaknesses, or lacks a setting; a "
        "policy may take a status by name until a day."
    ),
    "intel.tcb.advisories": (
        "No security advisory of Intel's is open for this platform, except those that the policy takes until a day."
    ),
}
