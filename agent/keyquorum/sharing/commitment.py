# SPDX-License-Identifier: Apache-2.0
"""Commitments: the signed set names a false share, and its holder, before anything is combined (docs/sharing.md §6)."""

from __future__ import annotations

from keyquorum.native import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.secret import Share

_DOMAIN = b"keyquorum/v1/commitment\x00"
BLIND_SIZE = 32


def commit(set_id: bytes, epoch: int, path: tuple[int, ...], opening: Share) -> bytes:
    """Return SHA-256 over the domain, the share's place and its opening (32 random blinding bytes ‖ share).

    The blinding keeps the commitment from confirming a guess at the share.
    """
    place = set_id + epoch.to_bytes(4, "big") + bytes([len(path), *path])
    return sodium.sha256_over_secret(_DOMAIN + place, opening)
