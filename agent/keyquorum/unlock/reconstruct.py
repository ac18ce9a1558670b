# SPDX-License-Identifier: Apache-2.0
"""Step 4: combine the shares and unwrap the volume key, in protected memory (docs/boot.md §6)."""

from __future__ import annotations

from keyquorum.envelope import wrapping
from keyquorum.envelope.wrapping import WrappedKey
from keyquorum.errors import QuorumNotReachedError, UsageError
from keyquorum.model import tree
from keyquorum.model.volume_set import DIRECT
from keyquorum.secret import KeyEncryptionKey, VolumeKey
from keyquorum.sharing import tree as sharing
from keyquorum.sharing.commitment import BLIND_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.model.volume_set import VolumeSet
    from keyquorum.secret import Secret, Share


def rebuild_volume_key(volume_set: VolumeSet, shares: Mapping[int, Share]) -> VolumeKey:
    """Return the volume key; `shares` were all checked against their commitments.

    Raises `QuorumNotReachedError`, or `TamperingError` when the wrapped key was not made for this header.
    """
    secret = _combine(volume_set, shares)
    if volume_set.mode == DIRECT:
        return VolumeKey.from_integer(secret, volume_set.secret_size)
    wrapped = WrappedKey(nonce=volume_set.nonce, ciphertext=volume_set.wrapped)
    with KeyEncryptionKey.from_integer(secret, volume_set.secret_size) as kek:
        return wrapping.unwrap(kek, wrapped, volume_set.binding())


def rebuild_passphrase(volume_set: VolumeSet, shares: Mapping[int, Share]) -> Secret:
    """Return the passphrase of the keyslot that --with-keyslot added (docs/daemon.md §5).

    Raises `QuorumNotReachedError`, or `UsageError` when the volume has no such keyslot.
    """
    if volume_set.keyslot < 0:
        raise UsageError(
            "the volume was enrolled without --with-keyslot, so no passphrase follows from its fragments",
            "give the option x-keyquorum in crypttab instead of the key socket",
        )
    with KeyEncryptionKey.from_integer(_combine(volume_set, shares), volume_set.secret_size) as kek:
        return wrapping.keyslot_passphrase(kek)


def _combine(volume_set: VolumeSet, shares: Mapping[int, Share]) -> int:
    short = tree.missing(volume_set.policy, shares.keys())
    if short:
        raise QuorumNotReachedError(quorum_message(short))
    points = {}
    for index, share in shares.items():
        with share.part(BLIND_SIZE, volume_set.secret_size) as point:
            points[index] = point.integer()
    return sharing.combine(volume_set.policy, points, volume_set.secret_size)


def quorum_message(short: int) -> str:
    """Return the sentence about missing fragments."""
    return f"the quorum is not reached: {short} more valid {'fragment is' if short == 1 else 'fragments are'} needed"
