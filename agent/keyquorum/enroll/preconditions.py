# SPDX-License-Identifier: Apache-2.0
"""Step 1: refuse what cannot or must not be enrolled, before anything changes (docs/enrolment.md §2)."""

from __future__ import annotations

from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.errors import UsageError
from keyquorum.linux import block, drives, luks_admin
from keyquorum.model import header, token, token_size
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
    header.refuse_unusual(metadata)
    descriptor = header.describe(metadata, loaded.uuid)
    if token.find(header.tokens(metadata)) is not None:
        raise UsageError(
            f"{loaded.data_path} is enrolled already",
            f"take it out first, its passphrases keep working: keyquorum unenroll {loaded.data_path}",
        )
    return descriptor


def refuse_circles(policy: Policy, uuid: str, sysfs: str = "/sys") -> None:
    """Refuse a fragment disk that lies on the volume itself: it is not there before the volume is open."""
    for spec in policy.holders:
        if spec.kind != "disk":
            continue
        device = block.resolve(spec.options.device)
        if block.lies_on_volume(device, uuid, sysfs):
            raise UsageError(
                f"{spec.name}: {device} lies on the volume that it is to open",
                "use a disk that is there before the volume is open",
            )


def warn_of_shared_drives(policy: Policy, device: str, warn: Callable[[str], None]) -> None:
    """Say which fragment disks share a drive with the volume at `device` or with one another."""
    others = {"the volume": drives.drives_below(device)}
    for spec in policy.holders:
        if spec.kind != "disk":
            continue
        own = drives.drives_below(block.resolve(spec.options.device))
        for other, theirs in others.items():
            for drive in sorted(own & theirs):
                warn(f"{spec.name} and {other} are on one drive, {drive}: a theft or a fault takes both")
        others[spec.name] = own


def choose_kem(policy: Policy, loaded: Header, warn: Callable[[str], None]) -> str:
    """Return how fragments are sealed: as the policy says, else by X-Wing where this machine and this header allow it.

    docs/fragment.md §3 says what X25519 alone means for fragments whose recipient keys are published nowhere.
    """
    able = crypto.has_ml_kem()
    if policy.kem == X_WING and not able:
        raise UsageError(
            "this machine's OpenSSL cannot open X-Wing seals (it needs 3.5 or later)",
            'write kem = "x25519" in the policy\'s [fragments], or leave kem out',
        )
    if policy.kem:
        return policy.kem
    if not able:
        warn("fragments are sealed by X25519 and not by X-Wing: this machine's OpenSSL is older than 3.5")
        return X25519
    if token_size.estimate(policy.with_(kem=X_WING)).token > _room(loaded):
        warn("fragments are sealed by X25519 and not by X-Wing: this header has no room for the larger seals")
        return X25519
    return X_WING


def _room(loaded: Header) -> int:
    """Return how many bytes a token may have, less a tenth that an estimate may be wrong by."""
    return (luks_admin.metadata_area(loaded) - len(loaded.metadata())) * 9 // 10
