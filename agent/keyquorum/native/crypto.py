# SPDX-License-Identifier: Apache-2.0
"""libcrypto (OpenSSL), which libcryptsetup brings into every initramfs: what libsodium lacks.

ML-KEM-768 (OpenSSL 3.5 and later), SHA-3 for X-Wing, P-256 and AES-CFB for TPM sessions, HMAC for PCR banks.
"""

from __future__ import annotations

import ctypes

from keyquorum.errors import KeyquorumError
from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_LIB = load(("libcrypto.so.3",), "libssl3t64 (libssl3 on Debian 12)")

_md_fetch = function(_LIB, "EVP_MD_fetch", ADDRESS, ADDRESS, TEXT, TEXT)
_md_new = function(_LIB, "EVP_MD_CTX_new", ADDRESS)
_md_free = function(_LIB, "EVP_MD_CTX_free", None, ADDRESS)
_md_init = function(_LIB, "EVP_DigestInit_ex", INT, ADDRESS, ADDRESS, ADDRESS)
_md_update = function(_LIB, "EVP_DigestUpdate", INT, ADDRESS, ADDRESS, SIZE)
_md_update_public = function(_LIB, "EVP_DigestUpdate", INT, ADDRESS, TEXT, SIZE)
_md_final = function(_LIB, "EVP_DigestFinal_ex", INT, ADDRESS, ADDRESS, ADDRESS)
_md_xof = function(_LIB, "EVP_DigestFinalXOF", INT, ADDRESS, ADDRESS, SIZE)
_hmac = function(_LIB, "HMAC", ADDRESS, ADDRESS, ADDRESS, INT, TEXT, SIZE, ADDRESS, ADDRESS)
_key_free = function(_LIB, "EVP_PKEY_free", None, ADDRESS)
_context_new = function(_LIB, "EVP_PKEY_CTX_new_from_name", ADDRESS, ADDRESS, TEXT, TEXT)
_context_of = function(_LIB, "EVP_PKEY_CTX_new_from_pkey", ADDRESS, ADDRESS, ADDRESS, ADDRESS)
_context_free = function(_LIB, "EVP_PKEY_CTX_free", None, ADDRESS)
_fromdata_init = function(_LIB, "EVP_PKEY_fromdata_init", INT, ADDRESS)
_fromdata = function(_LIB, "EVP_PKEY_fromdata", INT, ADDRESS, ADDRESS, INT, ADDRESS)
_decapsulate_init = function(_LIB, "EVP_PKEY_decapsulate_init", INT, ADDRESS, ADDRESS)
_decapsulate = function(_LIB, "EVP_PKEY_decapsulate", INT, ADDRESS, ADDRESS, ADDRESS, TEXT, SIZE)
_derive_init = function(_LIB, "EVP_PKEY_derive_init", INT, ADDRESS)
_derive_peer = function(_LIB, "EVP_PKEY_derive_set_peer", INT, ADDRESS, ADDRESS)
_derive = function(_LIB, "EVP_PKEY_derive", INT, ADDRESS, ADDRESS, ADDRESS)
_keygen_init = function(_LIB, "EVP_PKEY_keygen_init", INT, ADDRESS)
_keygen = function(_LIB, "EVP_PKEY_generate", INT, ADDRESS, ADDRESS)
_set_params = function(_LIB, "EVP_PKEY_CTX_set_params", INT, ADDRESS, ADDRESS)
_get_octets = function(_LIB, "EVP_PKEY_get_octet_string_param", INT, ADDRESS, TEXT, ADDRESS, SIZE, ADDRESS)
_cipher_fetch = function(_LIB, "EVP_CIPHER_fetch", ADDRESS, ADDRESS, TEXT, TEXT)
_cipher_new = function(_LIB, "EVP_CIPHER_CTX_new", ADDRESS)
_cipher_free = function(_LIB, "EVP_CIPHER_CTX_free", None, ADDRESS)
_cipher_init = function(_LIB, "EVP_CipherInit_ex", INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, INT)
_cipher_update = function(_LIB, "EVP_CipherUpdate", INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS, INT)

_PKEY_KEYPAIR, _PKEY_PUBLIC = 0x87, 0x86  # EVP_PKEY_KEYPAIR, EVP_PKEY_PUBLIC_KEY
_UTF8, _OCTETS = 4, 5  # OSSL_PARAM_UTF8_STRING, OSSL_PARAM_OCTET_STRING
_UNMODIFIED = ctypes.c_size_t(-1).value


class _Parameter(ctypes.Structure):
    """OSSL_PARAM."""

    _fields_ = (
        ("key", TEXT),
        ("data_type", ctypes.c_uint),
        ("data", ADDRESS),
        ("data_size", SIZE),
        ("return_size", SIZE),
    )


def _parameters(*items: tuple[bytes, int, int, int]) -> ctypes.Array[_Parameter]:
    """Build an OSSL_PARAM list from (name, type, address, size)."""
    rows = [_Parameter(name, kind, address, size, _UNMODIFIED) for name, kind, address, size in items]
    return (_Parameter * (len(rows) + 1))(*rows, _Parameter())


def _check(done: object, what: str) -> None:
    if not isinstance(done, int) or done <= 0:
        raise KeyquorumError(f"OpenSSL refused: {what}")


_digests: dict[bytes, int] = {}


def _digest(name: bytes) -> int:
    found = _digests.get(name) or _md_fetch(None, name, None)
    if not found:
        raise KeyquorumError(f"OpenSSL has no {name.decode()}")
    _digests[name] = found
    return int(found)


def digest(algorithm: bytes, size: int, *parts: Secret | bytes) -> Secret:
    """Hash parts by any algorithm of OpenSSL's into `size` secret bytes; OpenSSL wipes its state."""
    output, context = Secret(size), _md_new()
    try:
        _check(_md_init(context, _digest(algorithm), None), "hashing")
        for part in parts:
            if isinstance(part, Secret):
                _md_update(context, part.address, part.size)
            else:
                _md_update_public(context, part, len(part))
        finish = (
            _md_xof(context, output.address, size)
            if algorithm.startswith(b"SHAKE")
            else _md_final(context, output.address, None)
        )
        _check(finish, "hashing")
    finally:
        _md_free(context)
    return output


def hmac(algorithm: str, key: Secret, data: bytes, size: int) -> bytes:
    """HMAC with a secret key whose tag is public, for extending a PCR; `size` is the digest's."""
    tag = ctypes.create_string_buffer(64)
    if not _hmac(_digest(algorithm.encode()), key.address, key.size, data, len(data), tag, None):
        raise KeyquorumError(f"OpenSSL refused: HMAC with {algorithm}")
    return tag.raw[:size]


class Key:
    """An EVP_PKEY, freed (and its private part wiped by OpenSSL) when the `with` block ends."""

    def __init__(self, address: int) -> None:
        self.address = address

    @classmethod
    def from_parameters(cls, algorithm: bytes, selection: int, *items: tuple[bytes, int, int, int]) -> Key:
        """Import a key from OSSL_PARAM rows; raises when OpenSSL lacks the algorithm or refuses the key."""
        context = _context_new(None, algorithm, None)
        if not context:
            raise KeyquorumError(f"OpenSSL has no {algorithm.decode()}")
        result = ADDRESS()
        try:
            _check(_fromdata_init(context), "importing a key")
            _check(_fromdata(context, ctypes.byref(result), selection, _parameters(*items)), "importing a key")
        finally:
            _context_free(context)
        return cls(result.value or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _key_free(self.address)


def has_ml_kem() -> bool:
    """Say whether this OpenSSL can open what is sealed by X-Wing."""
    context = _context_new(None, b"ML-KEM-768", None)
    _context_free(context)
    return bool(context)


def ml_kem_768_decapsulate(seed: Secret, ciphertext: bytes) -> Secret:
    """Return the shared secret for the private key with this 64-byte seed (FIPS 203, d ‖ z)."""
    with Key.from_parameters(b"ML-KEM-768", _PKEY_KEYPAIR, (b"seed", _OCTETS, seed.address, seed.size)) as key:
        context, shared = _context_of(None, key.address, None), Secret(32)
        try:
            size = SIZE(32)
            _check(_decapsulate_init(context, None), "decapsulation")
            _check(
                _decapsulate(context, shared.address, ctypes.byref(size), ciphertext, len(ciphertext)), "decapsulation"
            )
        finally:
            _context_free(context)
    return shared


def ml_kem_768_public(seed: Secret) -> bytes:
    """Return the public key (1184 bytes) of the private key with this 64-byte seed."""
    with Key.from_parameters(b"ML-KEM-768", _PKEY_KEYPAIR, (b"seed", _OCTETS, seed.address, seed.size)) as key:
        encoded, size = ctypes.create_string_buffer(1184), SIZE(0)
        _check(_get_octets(key.address, b"pub", encoded, 1184, ctypes.byref(size)), "encoding a key")
    return encoded.raw


def p256_exchange(peer: bytes) -> tuple[bytes, Secret]:
    """Make a one-time P-256 key; return its point and the shared x with `peer`, both points as 04 ‖ x ‖ y."""
    group = ctypes.create_string_buffer(b"P-256")
    name = (b"group", _UTF8, ctypes.addressof(group), 5)
    context, result = _context_new(None, b"EC", None), ADDRESS()
    try:
        _check(_keygen_init(context), "making a P-256 key")
        _check(_set_params(context, _parameters(name)), "making a P-256 key")
        _check(_keygen(context, ctypes.byref(result)), "making a P-256 key")
    finally:
        _context_free(context)
    point = ctypes.create_string_buffer(peer, len(peer))
    with (
        Key(result.value or 0) as own,
        Key.from_parameters(b"EC", _PKEY_PUBLIC, name, (b"pub", _OCTETS, ctypes.addressof(point), len(peer))) as other,
    ):
        encoded, size = ctypes.create_string_buffer(65), SIZE(0)
        _check(_get_octets(own.address, b"encoded-pub-key", encoded, 65, ctypes.byref(size)), "encoding a point")
        shared, size = Secret(32), SIZE(32)
        context = _context_of(None, own.address, None)
        try:
            _check(_derive_init(context), "key agreement")
            _check(_derive_peer(context, other.address), "key agreement")
            _check(_derive(context, shared.address, ctypes.byref(size)), "key agreement")
        finally:
            _context_free(context)
    return encoded.raw, shared


def aes128_cfb(key: Secret, iv: Secret, address: int, size: int, *, encrypt: bool) -> None:
    """Encrypt or decrypt `size` bytes at `address` in place by AES-128-CFB."""
    cipher, context = _cipher_fetch(None, b"AES-128-CFB", None), _cipher_new()
    written = INT(0)
    try:
        _check(_cipher_init(context, cipher, None, key.address, iv.address, int(encrypt)), "AES-CFB")
        _check(_cipher_update(context, address, ctypes.byref(written), address, size), "AES-CFB")
    finally:
        _cipher_free(context)
