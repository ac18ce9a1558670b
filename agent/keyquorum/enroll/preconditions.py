# SPDX-License-Identifier: Apache-2.0
"""Step 1: refuse what cannot or must not be enrolled, before anything changes (docs/enrolment.md §2)."""

from __future__ import annotations

from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.errors import UsageError
from keyquorum.model import header, token
from keyquorum.native import crypto

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.header import HeaderDescriptor
    from keyquorum.model.policy import Policy


def check_header(loaded: Header) -> HeaderDescriptor:
    """Return the descriptor of a volume that may be enrolled."""
    metadata = loaded.metadata()
    descriptor = header.describe(metadata, loaded.uuid)
    header.refuse_unusual(descriptor)
    if token.find(header.tokens(metadata)) is not None:
        raise UsageError(
            f"{loaded.data_path} is enrolled already",
            f"take it out first, its passphrases keep working: keyquorum unenroll {loaded.data_path}",
        )
    return descriptor


def choose_kem(policy: Policy, warn: Callable[[str], None]) -> str:
    """Return how fragments are sealed: as the policy says, else X-Wing where this machine can open it at boot."""
    if policy.kem == X_WING and not crypto.has_ml_kem():
        raise UsageError(
            "this machine's OpenSSL cannot open X-Wing seals (it needs 3.5 or later)",
            'write kem = "x25519" in the policy\'s [fragments], or leave kem out',
        )
    if policy.kem:
        return policy.kem
    if crypto.has_ml_kem():
        return X_WING
    warn("fragments are sealed by X25519 alone: this OpenSSL is older than 3.5, so no post-quantum protection")
    return X25519
