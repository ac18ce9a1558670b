# SPDX-License-Identifier: Apache-2.0
"""libsodium: hashes, HMAC and HKDF, AEAD, X25519, Ed25519 verification and Argon2id, on addresses of locked memory."""

from __future__ import annotations

import ctypes

from keyquorum.errors import KeyquorumError
from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    SecretKind = TypeVar("SecretKind", bound=Secret)

_LONG = ctypes.c_ulonglong
_LIB = load(("libsodium.so.23", "libsodium.so.26", "libsodium.so"), "libsodium23")
if function(_LIB, "sodium_init", INT)() < 0:
    raise KeyquorumError("libsodium does not start")

SHA256_SIZE = 32
SHA512_SIZE = 64
TAG_SIZE = 16
_ARGON2ID13 = 2

_sha256 = function(_LIB, "crypto_hash_sha256", INT, ADDRESS, TEXT, _LONG)
_sha512 = function(_LIB, "crypto_hash_sha512", INT, ADDRESS, TEXT, _LONG)
_sha256_init = function(_LIB, "crypto_hash_sha256_init", INT, ADDRESS)
_sha256_update = function(_LIB, "crypto_hash_sha256_update", INT, ADDRESS, ADDRESS, _LONG)
_sha256_update_public = function(_LIB, "crypto_hash_sha256_update", INT, ADDRESS, TEXT, _LONG)
_sha256_final = function(_LIB, "crypto_hash_sha256_final", INT, ADDRESS, ADDRESS)
_SHA256_STATE = int(function(_LIB, "crypto_hash_sha256_statebytes", SIZE)())
_hmac_init = function(_LIB, "crypto_auth_hmacsha256_init", INT, ADDRESS, ADDRESS, SIZE)
_hmac_update = function(_LIB, "crypto_auth_hmacsha256_update", INT, ADDRESS, ADDRESS, _LONG)
_hmac_update_public = function(_LIB, "crypto_auth_hmacsha256_update", INT, ADDRESS, TEXT, _LONG)
_hmac_final = function(_LIB, "crypto_auth_hmacsha256_final", INT, ADDRESS, ADDRESS)
_HMAC_STATE = int(function(_LIB, "crypto_auth_hmacsha256_statebytes", SIZE)())
_verify = function(_LIB, "crypto_sign_ed25519_verify_detached", INT, TEXT, TEXT, _LONG, TEXT)
_point_ok = function(_LIB, "crypto_core_ed25519_is_valid_point", INT, TEXT)
_x25519 = function(_LIB, "crypto_scalarmult_curve25519", INT, ADDRESS, ADDRESS, TEXT)
_x25519_base = function(_LIB, "crypto_scalarmult_curve25519_base", INT, TEXT, ADDRESS)
_argon2id = function(_LIB, "crypto_pwhash", INT, ADDRESS, _LONG, ADDRESS, _LONG, TEXT, _LONG, SIZE, INT)
_random = function(_LIB, "randombytes_buf", None, ADDRESS, SIZE)
_open_ietf = function(
    _LIB,
    "crypto_aead_chacha20poly1305_ietf_decrypt",
    INT,
    ADDRESS,
    ADDRESS,
    ADDRESS,
    TEXT,
    _LONG,
    TEXT,
    _LONG,
    ADDRESS,
    ADDRESS,
)
_open_x = function(
    _LIB,
    "crypto_aead_xchacha20poly1305_ietf_decrypt",
    INT,
    ADDRESS,
    ADDRESS,
    ADDRESS,
    TEXT,
    _LONG,
    TEXT,
    _LONG,
    TEXT,
    ADDRESS,
)
_seal_x = function(
    _LIB,
    "crypto_aead_xchacha20poly1305_ietf_encrypt",
    INT,
    ADDRESS,
    ADDRESS,
    ADDRESS,
    _LONG,
    TEXT,
    _LONG,
    ADDRESS,
    TEXT,
    ADDRESS,
)


def random_secret(kind: type[SecretKind], size: int) -> SecretKind:
    """Return `size` random bytes of the kernel's in protected memory."""
    secret = kind(size)
    _random(secret.address, size)
    return secret


def sha256(data: bytes) -> bytes:
    """Hash public bytes."""
    digest = ctypes.create_string_buffer(SHA256_SIZE)
    _sha256(digest, data, len(data))
    return digest.raw


def sha512(data: bytes) -> bytes:
    """Hash public bytes."""
    digest = ctypes.create_string_buffer(SHA512_SIZE)
    _sha512(digest, data, len(data))
    return digest.raw


def sha256_over_secret(prefix: bytes, data: Secret) -> bytes:
    """Hash public bytes followed by secret ones; the digest is public."""
    digest = ctypes.create_string_buffer(SHA256_SIZE)
    with Secret(_SHA256_STATE) as state:
        _sha256_init(state.address)
        _sha256_update_public(state.address, prefix, len(prefix))
        _sha256_update(state.address, data.address, data.size)
        _sha256_final(state.address, digest)
    return digest.raw


class Hmac:
    """HMAC-SHA256 whose key, input and output stay in protected memory."""

    def __init__(self, key: Secret) -> None:
        self._state = Secret(_HMAC_STATE)
        _hmac_init(self._state.address, key.address, key.size)

    def add(self, data: Secret) -> None:
        """Feed secret bytes."""
        _hmac_update(self._state.address, data.address, data.size)

    def add_public(self, data: bytes) -> None:
        """Feed public bytes."""
        _hmac_update_public(self._state.address, data, len(data))

    def finish(self) -> Secret:
        """Return the 32-byte tag; the object is spent."""
        tag = Secret(SHA256_SIZE)
        _hmac_final(self._state.address, tag.address)
        self._state.wipe()
        return tag


def hkdf_extract(salt: bytes, *parts: Secret | bytes) -> Secret:
    """HKDF-Extract (RFC 5869 §2.2) over the concatenation of `parts`."""
    with Secret.from_view(salt or bytes(SHA256_SIZE)) as key:
        mac = Hmac(key)
    for part in parts:
        if isinstance(part, Secret):
            mac.add(part)
        else:
            mac.add_public(part)
    return mac.finish()


def hkdf_expand(key: Secret, info: bytes, size: int) -> Secret:
    """HKDF-Expand (RFC 5869 §2.3)."""
    output, block = Secret(size), Secret(0)
    for number in range(1, (size + SHA256_SIZE - 1) // SHA256_SIZE + 1):
        mac = Hmac(key)
        mac.add(block)
        mac.add_public(info + bytes([number]))
        block.wipe()
        block = mac.finish()
        start = (number - 1) * SHA256_SIZE
        take = min(SHA256_SIZE, size - start)
        output.view[start : start + take] = block.view[:take]
    block.wipe()
    return output


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether an Ed25519 signature is right. Keys of small order never verify anything."""
    if len(public_key) != 32 or len(signature) != 64 or _point_ok(public_key) != 1:
        return False
    return bool(_verify(signature, message, len(message), public_key) == 0)


def x25519(private: Secret, public: bytes) -> Secret | None:
    """Return the shared secret, or None for a public key of small order."""
    shared = Secret(32)
    if _x25519(shared.address, private.address, public) != 0:
        shared.wipe()
        return None
    return shared


def x25519_public(private: Secret) -> bytes:
    """Return the public key of a private one."""
    public = ctypes.create_string_buffer(32)
    _x25519_base(public, private.address)
    return public.raw


def open_chacha20poly1305(key: Secret, nonce: Secret, sealed: bytes, context: bytes) -> Secret | None:
    """Open an RFC 8439 AEAD ciphertext; None when it was not made with this key, nonce and context."""
    if len(sealed) < TAG_SIZE:
        return None
    plain = Secret(len(sealed) - TAG_SIZE)
    if _open_ietf(plain.address, None, None, sealed, len(sealed), context, len(context), nonce.address, key.address):
        plain.wipe()
        return None
    return plain


def open_xchacha20poly1305(
    key: Secret, nonce: bytes, sealed: bytes, context: bytes, into: type[SecretKind]
) -> SecretKind | None:
    """Open an XChaCha20-Poly1305 ciphertext (24-byte nonce) into a secret of the given type."""
    if len(sealed) < TAG_SIZE or len(nonce) != 24:
        return None
    plain = into(len(sealed) - TAG_SIZE)
    if _open_x(plain.address, None, None, sealed, len(sealed), context, len(context), nonce, key.address):
        plain.wipe()
        return None
    return plain


def seal_xchacha20poly1305(key: Secret, nonce: bytes, plain: Secret, context: bytes) -> bytes:
    """Seal a secret; the nonce must never be used twice with this key."""
    sealed = ctypes.create_string_buffer(plain.size + TAG_SIZE)
    _seal_x(sealed, None, plain.address, plain.size, context, len(context), None, nonce, key.address)
    return sealed.raw


def argon2id(passphrase: Secret, salt: bytes, passes: int, memory: int, into: type[SecretKind]) -> SecretKind:
    """Derive 32 bytes from a passphrase by Argon2id 1.3 with one lane; `memory` in bytes, `salt` of 16 bytes."""
    key = into(32)
    if _argon2id(key.address, 32, passphrase.address, passphrase.size, salt, passes, memory, _ARGON2ID13):
        key.wipe()
        raise KeyquorumError(f"Argon2id could not get {memory >> 20} MiB of memory")
    return key
