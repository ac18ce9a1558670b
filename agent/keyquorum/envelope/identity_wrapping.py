# SPDX-License-Identifier: Apache-2.0
"""Wrapping a fragment's identity under key material that a holder reproduces (docs/holders-people.md §1).

key = HKDF-SHA256(material, info), sealed = XChaCha20-Poly1305(key, nonce 0, identity, associated data info), with
info = "keyquorum/v1/" ‖ kind ‖ 0x00 ‖ canonical JSON of what it is bound to. The nonce may be constant because the
material is fresh for each wrapping (a new salt, seed or one-time key): no key is ever used twice.
"""

from __future__ import annotations

from keyquorum.model import strict_json
from keyquorum.native import sodium
from keyquorum.secret import Identity, Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

IDENTITY_SIZE = 32
WRAPPED_SIZE = IDENTITY_SIZE + sodium.TAG_SIZE
_NONCE = bytes(24)


def wrap_identity(material: Secret, identity: Identity, kind: str, bound: Mapping[str, str]) -> bytes:
    """Wrap an identity under material that was never used before."""
    info = _info(kind, bound)
    with _key(material, info) as key:
        return sodium.seal_xchacha20poly1305(key, _NONCE, identity, info)


def unwrap_identity(material: Secret, wrapped: bytes, kind: str, bound: Mapping[str, str]) -> Identity | None:
    """Return the identity; None when material, kind and binding are not those it was wrapped with."""
    info = _info(kind, bound)
    if len(wrapped) != WRAPPED_SIZE:
        return None
    with _key(material, info) as key:
        return sodium.open_xchacha20poly1305(key, _NONCE, wrapped, info, Identity)


def _info(kind: str, bound: Mapping[str, str]) -> bytes:
    return b"keyquorum/v1/" + kind.encode() + b"\x00" + strict_json.serialise(dict(bound))


def _key(material: Secret, info: bytes) -> Secret:
    with sodium.hkdf_extract(b"", material) as extracted:
        return sodium.hkdf_expand(extracted, info, 32)
