# SPDX-License-Identifier: Apache-2.0
"""RSA-OAEP encryption of a secret by libcrypto, for salting a TPM session to an RSA storage key."""

from __future__ import annotations

import ctypes
import sys

from keyquorum.errors import KeyquorumError
from keyquorum.native.crypto import Key
from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.secret import Secret

_LIB = load(("libcrypto.so.3",), "libssl3t64 (libssl3 on Debian 12)")

_context_of = function(_LIB, "EVP_PKEY_CTX_new_from_pkey", ADDRESS, ADDRESS, ADDRESS, ADDRESS)
_context_free = function(_LIB, "EVP_PKEY_CTX_free", None, ADDRESS)
_encrypt_init = function(_LIB, "EVP_PKEY_encrypt_init_ex", INT, ADDRESS, ADDRESS)
_encrypt = function(_LIB, "EVP_PKEY_encrypt", INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS, SIZE)
_set_padding = function(_LIB, "EVP_PKEY_CTX_set_rsa_padding", INT, ADDRESS, INT)
_set_digest = function(_LIB, "EVP_PKEY_CTX_set_rsa_oaep_md_name", INT, ADDRESS, TEXT, TEXT)
_set_mask_digest = function(_LIB, "EVP_PKEY_CTX_set_rsa_mgf1_md_name", INT, ADDRESS, TEXT, TEXT)
_set_label = function(_LIB, "EVP_PKEY_CTX_set0_rsa_oaep_label", INT, ADDRESS, ADDRESS, INT)
_duplicate = function(_LIB, "CRYPTO_memdup", ADDRESS, TEXT, SIZE, TEXT, INT)

_OAEP = 4  # RSA_PKCS1_OAEP_PADDING
_PKEY_PUBLIC = 0x86  # EVP_PKEY_PUBLIC_KEY
_UNSIGNED = 2  # OSSL_PARAM_UNSIGNED_INTEGER


def encrypt(modulus: bytes, exponent: int, label: bytes, secret: Secret) -> bytes:
    """Return `secret` encrypted by RSA-OAEP with SHA-256; the modulus is big-endian. Raises `KeyquorumError`."""
    native = int.from_bytes(modulus, "big").to_bytes(len(modulus), sys.byteorder)  # as OSSL_PARAM integers are
    number = ctypes.create_string_buffer(native, len(modulus))
    power = ctypes.create_string_buffer(exponent.to_bytes(8, sys.byteorder), 8)
    rows = (
        (b"n", _UNSIGNED, ctypes.addressof(number), len(modulus)),
        (b"e", _UNSIGNED, ctypes.addressof(power), 8),
    )
    with Key.from_parameters(b"RSA", _PKEY_PUBLIC, *rows) as key:
        context = _context_of(None, key.address, None)
        try:
            output, size = ctypes.create_string_buffer(len(modulus)), SIZE(len(modulus))
            done = (
                _encrypt_init(context, None) > 0
                and _set_padding(context, _OAEP) > 0
                and _set_digest(context, b"SHA256", None) > 0
                and _set_mask_digest(context, b"SHA256", None) > 0
                # OpenSSL takes the label over and frees it
                and _set_label(context, _duplicate(label, len(label), None, 0), len(label)) > 0
                and _encrypt(context, output, ctypes.byref(size), secret.address, secret.size) > 0
            )
        finally:
            _context_free(context)
    if not done:
        raise KeyquorumError("OpenSSL refused: RSA-OAEP")
    return output.raw[: size.value]
