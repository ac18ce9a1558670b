# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of evidence that only one cloud has: Azure's paravisor, AWS Nitro Enclaves."""

from __future__ import annotations

WORDS = {
    "hcl.report.format": "What Azure's lower layer (the paravisor) left in the virtual TPM can be read to its end.",
    "hcl.report.kind": "The machine runs on the technology that you asked for, SEV-SNP or TDX.",
    "hcl.runtime.format": (
        "The paravisor's statement, whose hash the chip vouches for, names one attestation key and says how the "
        "machine is set up."
    ),
    "hcl.user-data": "The machine wrote the 64 bytes that were asked for.",
    "hcl.secure-boot": "The virtual machine has Secure Boot switched on.",
    "hcl.tpm": "The virtual machine has its virtual TPM switched on.",
    "hcl.console": "Nobody can type at the machine's console from outside.",
    "hcl.machine": "It is one of the virtual machines that the policy names.",
    "nitro.document.cbor": "The document can be read to its end, and is written in the one way that it must be.",
    "nitro.document.header": "It says that it is signed by the one method that AWS uses, and nothing else.",
    "nitro.document.fields": "Every field has its size and kind, and there is none that is not known.",
    "nitro.chain.certificates": "The certificates in the document can be read.",
    "nitro.chain.root": "The root certificate is AWS's own, known to this program by its fingerprint.",
    "nitro.chain.path": "Each certificate is signed by the next one up.",
    "nitro.chain.leaf": "The key that signed is one for signing documents and may not vouch for others.",
    "nitro.chain.validity": "All certificates are valid at this instant. The last of them lives three hours only.",
    "nitro.signature": "The key of the certificate signed the document. One changed bit, and it does not fit.",
    "nitro.nonce-size": "What was asked for is long enough that nobody can have guessed it before.",
    "nitro.nonce": "The document carries what was asked for, so it was made for this question and is not a recording.",
    "nitro.user-data": "It carries the data that the caller demanded from the enclave.",
    "nitro.public-key": "It carries the key that the caller demanded, to which an answer is then sealed.",
    "nitro.age": "The document is not older than the policy allows, and not from the future.",
    "nitro.debug": "The enclave is not debugged. Debugged, its console is open and its measurements are zero.",
    "nitro.pcrs": "Image, kernel, application, role, instance and signer are those that the policy lists.",
}
