# SPDX-License-Identifier: Apache-2.0
"""What the key-encryption key does: it wraps the volume key and derives the optional keyslot's passphrase.

XChaCha20-Poly1305 under HKDF(KEK, "keyquorum/v1/wrap"); the associated data binds the wrapped key to the header
descriptor, volume, set, epoch and policy (I5, docs/token.md §4).
"""

from __future__ import annotations

import binascii

from keyquorum.errors import TamperingError
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.secret import KeyEncryptionKey, Secret, VolumeKey

NONCE_SIZE = 24
_WRAP_INFO = b"keyquorum/v1/wrap"
_KEYSLOT_INFO = b"keyquorum/v1/keyslot"


class WrappedKey(Record):
    """A volume key under the KEK."""

    nonce: bytes
    ciphertext: bytes


def wrap(kek: KeyEncryptionKey, volume_key: VolumeKey, binding: bytes, nonce: bytes) -> WrappedKey:
    """Wrap a volume key; `nonce` is 24 fresh random bytes, `binding` the associated data."""
    with sodium.hkdf_expand(kek, _WRAP_INFO, 32) as key:
        return WrappedKey(nonce=nonce, ciphertext=sodium.seal_xchacha20poly1305(key, nonce, volume_key, binding))


def unwrap(kek: KeyEncryptionKey, wrapped: WrappedKey, binding: bytes) -> VolumeKey:
    """Unwrap a volume key; raises `TamperingError` when KEK, ciphertext and binding do not belong together."""
    with sodium.hkdf_expand(kek, _WRAP_INFO, 32) as key:
        plain = sodium.open_xchacha20poly1305(key, wrapped.nonce, wrapped.ciphertext, binding, VolumeKey)
    if plain is None:
        raise TamperingError("volume key", "wrap", "was not wrapped by this set for this header")
    return plain


def keyslot_passphrase(kek: KeyEncryptionKey) -> Secret:
    """Return the passphrase of the keyslot that `--with-keyslot` adds: 64 hexadecimal digits, so it can be typed."""
    with sodium.hkdf_expand(kek, _KEYSLOT_INFO, 32) as raw:
        passphrase = Secret(64)
        for index, byte in enumerate(raw.view):
            passphrase.view[2 * index : 2 * index + 2] = binascii.hexlify(bytes((byte,)))
    return passphrase
