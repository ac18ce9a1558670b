# SPDX-License-Identifier: Apache-2.0
"""Every check of TPM evidence by its name, and where it is demanded (docs/attestation.md §5 has the whole table)."""

from __future__ import annotations

_ATTEST = "TPM 2.0 Part 2 §10.12 TPMS_ATTEST"
_SELECTION = "TPM 2.0 Part 2 §10.6 TPML_PCR_SELECTION"
_CLOCK = "TPM 2.0 Part 2 §10.11 TPMS_CLOCK_INFO"
_SIGNATURE = "TPM 2.0 Part 2 §11.3 TPMT_SIGNATURE"
_PUBLIC = "TPM 2.0 Part 2 §12.2 TPMT_PUBLIC"
_OBJECT = "TPM 2.0 Part 2 §8.3 TPMA_OBJECT"
_EK = "TCG EK Credential Profile for TPM 2.0"
_PFP = "TCG PC Client Platform Firmware Profile"
_OURS = "docs/attestation.md"

REFERENCES = {
    "policy.signature": f"{_OURS} §8",
    "policy.format": f"{_OURS} §8",
    "policy.validity": f"{_OURS} §8",
    "policy.serial": f"{_OURS} §8",
    "tpm.signature.structure": _SIGNATURE,
    "tpm.signature.scheme": _SIGNATURE,
    "tpm.signature.value": "TPM 2.0 Part 3 §18.4 TPM2_Quote",
    "tpm.attest.magic": "TPM 2.0 Part 2 §6.2 TPM_GENERATED",
    "tpm.attest.type": "TPM 2.0 Part 2 §6.9 TPM_ST",
    "tpm.attest.structure": _ATTEST,
    "tpm.attest.nonce": _ATTEST,
    "tpm.attest.nonce-size": f"{_OURS} §4",
    "tpm.attest.signer": "TPM 2.0 Part 1 §16 Names",
    "tpm.quote.selections": _SELECTION,
    "tpm.quote.bank": _SELECTION,
    "tpm.quote.pcrs": _SELECTION,
    "tpm.quote.digest": "TPM 2.0 Part 3 §18.4 TPM2_Quote",
    "tpm.clock.safe": _CLOCK,
    "tpm.clock.forward": _CLOCK,
    "tpm.clock.same-boot": _CLOCK,
    "tpm.firmware.floor": _ATTEST,
    "tpm.ak.structure": _PUBLIC,
    "tpm.ak.attributes": _OBJECT,
    "tpm.ak.scheme": _PUBLIC,
    "tpm.ak.name": "TPM 2.0 Part 1 §16 Names",
    "tpm.ak.bound": "TPM 2.0 Part 1 §24 Credential Protection",
    "tpm.ek.structure": _PUBLIC,
    "tpm.ek.attributes": f"{_EK}, templates",
    "tpm.ek.listed": f"{_OURS} §6",
    "tpm.ek.certificate": f"{_EK}, EK certificate",
    "tpm.ek.chain": "RFC 5280 §6",
    "tpm.ek.validity": "RFC 5280 §6.1.3",
    "tpm.ek.revocation": "RFC 5280 §6.3",
    "tpm.ek.usage": f"{_EK}, extended key usage",
    "tpm.ek.maker": f"{_EK}, subject alternative name",
    "tpm.ek.key": f"{_EK}, subject public key",
    "tpm.log.format": f"{_PFP} §10",
    "tpm.log.replay": f"{_PFP} §10",
    "tpm.log.separators": f"{_PFP} §10.4 EV_SEPARATOR",
    "tpm.log.secure-boot": f"{_PFP}, PCR 7",
    "tpm.log.exit-boot-services": f"{_PFP}, PCR 5",
    "tpm.pcr.values": f"{_OURS} §8",
    "tpm.pcr.unjudged": f"{_OURS} §8",
}

# Without all of these there is no trust in a quote, nor in a pair of keys.
QUOTE = frozenset(name for name in REFERENCES if not name.startswith(("tpm.ak.", "tpm.ek.", "tpm.pcr.unjudged")))
KEYS = frozenset(name for name in REFERENCES if name.startswith(("tpm.ak.", "tpm.ek.")))
