# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of a TPM's quotes, keys and event log."""

from __future__ import annotations

WORDS = {
    "tpm.signature.structure": "The signature is of a kind that is strong enough, and has nothing behind its end.",
    "tpm.signature.scheme": (
        "It is made in the way that the key itself prescribes, whatever the signature says of itself."
    ),
    "tpm.signature.value": "The machine's attestation key signed this quote. One changed bit, and it does not fit.",
    "tpm.attest.magic": (
        "The quote begins with the mark that a TPM puts only before what it made itself. So nobody had it sign a "
        "text that merely looks like a quote."
    ),
    "tpm.attest.type": "What was signed is a quote, and not another statement of the TPM.",
    "tpm.attest.structure": "The quote can be read to its end.",
    "tpm.attest.nonce": (
        "The quote carries what was asked for, so it was made for this question and is not a recording."
    ),
    "tpm.attest.nonce-size": "What was asked for is long enough that nobody can have guessed it before.",
    "tpm.attest.signer": (
        "The key that signed sits where it was enrolled, in the part of the TPM that vouches for hardware. Elsewhere "
        "a TPM hides its counters."
    ),
    "tpm.quote.selections": (
        "The quote is of one set of registers. With two sets, a register that anybody may set could pass for another."
    ),
    "tpm.quote.bank": "The registers are those of the hash that the policy names.",
    "tpm.quote.pcrs": "The quote is of exactly the registers (PCRs) that the policy judges, no more and no fewer.",
    "tpm.quote.digest": "The values that were sent are the ones that the TPM signed.",
    "tpm.clock.safe": "The TPM's clock never shows an instant twice. After a loss of power it may, for about an hour.",
    "tpm.clock.forward": (
        "The TPM's counters are not before those of the last quote. Otherwise this one is older, or the TPM was "
        "cleared."
    ),
    "tpm.clock.same-boot": "The machine did not restart since the last quote, if that was demanded.",
    "tpm.firmware.floor": "The TPM's own firmware is at least as new as the policy wants.",
    "tpm.ak.structure": "The attestation key is of a kind and size that is strong enough.",
    "tpm.ak.attributes": (
        "The attestation key never leaves its TPM and signs only what the TPM itself says. A freer key could sign "
        "invented quotes."
    ),
    "tpm.ak.scheme": "The attestation key prescribes how it signs, with a strong hash.",
    "tpm.ak.name": "The name that the machine gave for its key is the one that the key has.",
    "tpm.ak.bound": (
        "The TPM with the known endorsement key opened a secret that it opens only for this attestation key. So both "
        "are in the same chip."
    ),
    "tpm.ek.structure": "The endorsement key, by which the maker knows the TPM, is of a kind that is strong enough.",
    "tpm.ek.attributes": "The endorsement key never leaves its TPM and only decrypts.",
    "tpm.ek.listed": "An operator listed this very TPM by hand; then no certificate is needed.",
    "tpm.ek.certificate": "The TPM has a certificate of its maker that can be read.",
    "tpm.ek.chain": "The certificate leads up to a maker whose root you gave.",
    "tpm.ek.validity": "All these certificates are valid at this instant.",
    "tpm.ek.revocation": "None of them is on a list of revoked ones.",
    "tpm.ek.usage": "The certificate is for an endorsement key, not for a web server that somebody ordered.",
    "tpm.ek.maker": "The certificate names maker, model and version of the TPM.",
    "tpm.ek.key": "The certificate is for the key that the machine showed.",
    "tpm.log.format": "The event log, which tells what was measured at boot, can be read.",
    "tpm.log.replay": (
        "Adding the log up gives the registers that the TPM vouches for. Only so the log, which has no signature, is "
        "believed."
    ),
    "tpm.log.separators": (
        "In each register there is one mark where firmware ends and the system begins, so nothing was slipped in later."
    ),
    "tpm.log.secure-boot": (
        "Secure Boot was on when the machine booted, and firmware said so once, before it gave control away."
    ),
    "tpm.log.exit-boot-services": "The firmware handed over to the operating system in the ordinary way.",
    "tpm.pcr.values": (
        "Every register has a value, or is made of events, that the policy lists. This is what tells your system from"
        " a changed one."
    ),
    "tpm.pcr.unjudged": "The policy takes any value of this register. It is shown so that nobody overlooks it.",
}
