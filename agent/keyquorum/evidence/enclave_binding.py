# SPDX-License-Identifier: Apache-2.0
"""What an enclave's evidence is bound to: one question, its keys, one deposit (docs/holders-enclave.md §3).

Both ends compute it, each from what it knows itself; a boot with such a holder, too.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.evidence.binding import digest_of
from keyquorum.model.fragment_name import FragmentName
from keyquorum.native import sodium
from keyquorum.record import Record

_DOMAIN = b"keyquorum/v1/enclave"
NONCE = 32
_KEY = 32
_MAX_NAME = 256
_MAX_SPKI = 4096


class EnclaveBinding(Record):
    """All that an enclave's evidence is for. `nonce` has 32 bytes, and so has `signing_key` (Ed25519).

    `tls_key` is the key of the certificate on this connection, `sealing_key` the one that deposits are sealed to, both
    SubjectPublicKeyInfo in DER.
    """

    nonce: bytes
    custodian: str
    signing_key: bytes
    tls_key: bytes
    sealing_key: bytes
    fragment: FragmentName


def report_data(binding: EnclaveBinding) -> bytes:
    """Return the 64 bytes that evidence carries; raises `MalformedError` for what cannot be bound."""
    _check(binding)
    fragment = binding.fragment
    return digest_of(
        (
            _DOMAIN,
            binding.nonce,
            binding.custodian.encode(),
            binding.signing_key,
            binding.tls_key,
            binding.sealing_key,
            fragment.volume.encode(),
            fragment.set_id + bytes((fragment.index,)),
            fragment.epoch.to_bytes(4, "big"),
        )
    )


def qualifying_data(binding: EnclaveBinding) -> bytes:
    """Return the 32 bytes for evidence whose nonce is a TPM's, as Azure's is: SHA-256 of `report_data`."""
    return sodium.sha256(report_data(binding))


def _check(binding: EnclaveBinding) -> None:
    rules = (
        ("nonce", len(binding.nonce) == NONCE),
        ("custodian", 0 < len(binding.custodian.encode()) <= _MAX_NAME),
        ("signing_key", len(binding.signing_key) == _KEY),
        ("tls_key", 0 < len(binding.tls_key) <= _MAX_SPKI),
        ("sealing_key", 0 < len(binding.sealing_key) <= _MAX_SPKI),
    )
    for name, holds in rules:
        if not holds:
            raise MalformedError("what the enclave's evidence is bound to", name, "has a wrong size")
