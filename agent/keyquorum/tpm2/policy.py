# SPDX-License-Identifier: Apache-2.0
"""Policy digests as the TPM computes them, without a TPM (Part 3 §23; docs/holders-tpm.md §4)."""

from __future__ import annotations

from keyquorum.native import sodium
from keyquorum.tpm2 import banks
from keyquorum.tpm2.wire import u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_POLICY_AUTHORIZE, _POLICY_AUTH_VALUE, _POLICY_PCR = 0x16A, 0x16B, 0x17F
START = bytes(32)


def pcr_digest(values: Mapping[int, bytes]) -> bytes:
    """Return the digest of PCR values in the order of their numbers (Part 3 §23.7.1)."""
    return sodium.sha256(b"".join(values[pcr] for pcr in sorted(values)))


def after_pcr(before: bytes, bank: str, values: Mapping[int, bytes]) -> bytes:
    """Return the policy digest after TPM2_PolicyPCR."""
    return sodium.sha256(before + u32(_POLICY_PCR) + banks.selection(bank, values) + pcr_digest(values))


def after_authorize(signer: bytes) -> bytes:
    """Return the policy digest after TPM2_PolicyAuthorize by the key named `signer`, with an empty policyRef.

    It replaces what the policy was before (Part 3 §23.16.1).
    """
    return sodium.sha256(sodium.sha256(START + u32(_POLICY_AUTHORIZE) + signer))


def after_auth_value(before: bytes) -> bytes:
    """Return the policy digest after TPM2_PolicyAuthValue."""
    return sodium.sha256(before + u32(_POLICY_AUTH_VALUE))


def sealing_policy(signer: bytes, bank: str, values: Mapping[int, bytes], *, pin: bool) -> bytes:
    """Return the digest of our policy: signed PCRs, then literal PCRs, then the PIN, each only if there is one.

    The order is systemd's. `signer` is the Name of the key that signs PCR policies, or empty.
    """
    found = after_authorize(signer) if signer else START
    if values:
        found = after_pcr(found, bank, values)
    return after_auth_value(found) if pin else found
