# SPDX-License-Identifier: Apache-2.0
"""What a PIN is to a TPM (docs/holders-tpm.md)."""

from __future__ import annotations

from keyquorum.native import sodium
from keyquorum.secret import Secret

# Argon2id for the PIN. The TPM's lockout is what protects it; this only makes a leaked authorisation value useless.
_PIN_PASSES, _PIN_MEMORY = 2, 16 << 20


def pin_value(pin: Secret, salt: bytes) -> Secret:
    """Return a PIN's authorisation value: Argon2id, without trailing zeros as a TPM keeps it (Part 1 §19.6.4.3)."""
    with sodium.argon2id(pin, salt, _PIN_PASSES, _PIN_MEMORY, Secret) as value:
        size = value.size
        while size and not value.view[size - 1]:
            size -= 1
        return value.part(0, size)
