# SPDX-License-Identifier: Apache-2.0
"""Policy digests by the formulas of Part 3. That a TPM agrees is shown in tests/devices/test_tpm_policy.py."""

from __future__ import annotations

import hashlib

from keyquorum.tpm2 import policy
from keyquorum.tpm2.wire import u32

VALUES = {11: b"e" * 32, 7: b"7" * 32}
SIGNER = b"\x00\x0b" + b"n" * 32


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_pcrs_are_taken_in_the_order_of_their_numbers() -> None:
    assert policy.pcr_digest(VALUES) == sha256(b"7" * 32, b"e" * 32)


def test_each_step_extends_the_digest() -> None:
    selection = bytes.fromhex("00000001 000b 03 800800")
    expected = sha256(bytes(32), u32(0x17F), selection, policy.pcr_digest(VALUES))
    assert policy.after_pcr(policy.START, "sha256", VALUES) == expected
    assert policy.after_auth_value(expected) == sha256(expected, u32(0x16B))
    assert policy.after_authorize(SIGNER) == sha256(sha256(bytes(32), u32(0x16A), SIGNER))


def test_the_order_is_signed_then_literal_then_pin() -> None:
    authorized = policy.after_authorize(SIGNER)
    literal = policy.after_pcr(authorized, "sha256", VALUES)
    assert policy.sealing_policy(SIGNER, "sha256", VALUES, pin=True) == policy.after_auth_value(literal)
    assert policy.sealing_policy(SIGNER, "sha256", {}, pin=False) == authorized
    assert policy.sealing_policy(b"", "sha256", VALUES, pin=False) == policy.after_pcr(policy.START, "sha256", VALUES)
    assert policy.sealing_policy(b"", "sha256", {}, pin=False) == bytes(32)


def test_every_part_counts() -> None:
    digests = {
        policy.sealing_policy(signer, bank, values, pin=pin)
        for signer in (b"", SIGNER, SIGNER[:-1] + b"m")
        for bank, values in (
            ("sha256", {}), ("sha256", VALUES), ("sha256", {7: VALUES[7]}), ("sha256", {8: VALUES[7]}), ("sha384", VALUES)
        )
        for pin in (False, True)
    }  # fmt: skip
    assert len(digests) == 3 * 5 * 2
