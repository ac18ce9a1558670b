# SPDX-License-Identifier: Apache-2.0
"""The functions of libssl and libcrypto that a TLS client needs, declared (docs/decisions/0052-tls-client.md).

Whoever loads this file loads libssl; `native.tls` is the only one.
"""

from __future__ import annotations

import ctypes

from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load

_LONG = ctypes.c_long
_PACKAGE = "libssl3t64 (libssl3 on Debian 12)"
_SSL = load(("libssl.so.3",), _PACKAGE)
_CRYPTO = load(("libcrypto.so.3",), _PACKAGE)

TLS1_3 = 0x0304
CTRL_MIN_VERSION, CTRL_MAX_VERSION = 123, 124  # SSL_CTRL_SET_MIN_PROTO_VERSION, SSL_CTRL_SET_MAX_PROTO_VERSION
CTRL_CHAIN_CERT, CTRL_HOST_NAME = 89, 55  # SSL_CTRL_CHAIN_CERT, SSL_CTRL_SET_TLSEXT_HOSTNAME
VERIFY_PEER = 1
NO_TICKET = 1 << 14  # SSL_OP_NO_TICKET
NO_PARTIAL_WILDCARDS, NEVER_THE_SUBJECT = 0x4, 0x20  # X509_CHECK_FLAG_…: names are subject alternative names, whole
ED25519 = 1087  # EVP_PKEY_ED25519
WANT_READ, WANT_WRITE, END = 2, 3, 6  # SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN

client_method = function(_SSL, "TLS_client_method", ADDRESS)
context_new = function(_SSL, "SSL_CTX_new", ADDRESS, ADDRESS)
context_free = function(_SSL, "SSL_CTX_free", None, ADDRESS)
context_control = function(_SSL, "SSL_CTX_ctrl", _LONG, ADDRESS, INT, _LONG, ADDRESS)
context_options = function(_SSL, "SSL_CTX_set_options", ctypes.c_uint64, ADDRESS, ctypes.c_uint64)
context_verify = function(_SSL, "SSL_CTX_set_verify", None, ADDRESS, INT, ADDRESS)
context_store = function(_SSL, "SSL_CTX_get_cert_store", ADDRESS, ADDRESS)
context_certificate = function(_SSL, "SSL_CTX_use_certificate", INT, ADDRESS, ADDRESS)
context_key = function(_SSL, "SSL_CTX_use_PrivateKey", INT, ADDRESS, ADDRESS)
session_new = function(_SSL, "SSL_new", ADDRESS, ADDRESS)
session_free = function(_SSL, "SSL_free", None, ADDRESS)
session_control = function(_SSL, "SSL_ctrl", _LONG, ADDRESS, INT, _LONG, TEXT)
session_buffers = function(_SSL, "SSL_set_bio", None, ADDRESS, ADDRESS, ADDRESS)
session_is_client = function(_SSL, "SSL_set_connect_state", None, ADDRESS)
session_host = function(_SSL, "SSL_set1_host", INT, ADDRESS, TEXT)
session_host_flags = function(_SSL, "SSL_set_hostflags", None, ADDRESS, ctypes.c_uint)
session_handshake = function(_SSL, "SSL_do_handshake", INT, ADDRESS)
session_forget_key = function(_SSL, "SSL_certs_clear", None, ADDRESS)
session_read = function(_SSL, "SSL_read", INT, ADDRESS, ADDRESS, INT)
session_write = function(_SSL, "SSL_write", INT, ADDRESS, TEXT, INT)
session_shutdown = function(_SSL, "SSL_shutdown", INT, ADDRESS)
session_error = function(_SSL, "SSL_get_error", INT, ADDRESS, INT)
session_certificate = function(_SSL, "SSL_get1_peer_certificate", ADDRESS, ADDRESS)
session_verdict = function(_SSL, "SSL_get_verify_result", _LONG, ADDRESS)

verdict_text = function(_CRYPTO, "X509_verify_cert_error_string", TEXT, _LONG)
store_add = function(_CRYPTO, "X509_STORE_add_cert", INT, ADDRESS, ADDRESS)
certificate_read = function(_CRYPTO, "d2i_X509", ADDRESS, ADDRESS, ADDRESS, _LONG)
certificate_key = function(_CRYPTO, "X509_get_X509_PUBKEY", ADDRESS, ADDRESS)
key_write = function(_CRYPTO, "i2d_X509_PUBKEY", INT, ADDRESS, ADDRESS)
certificate_free = function(_CRYPTO, "X509_free", None, ADDRESS)
raw_private_key = function(_CRYPTO, "EVP_PKEY_new_raw_private_key", ADDRESS, INT, ADDRESS, ADDRESS, SIZE)
key_free = function(_CRYPTO, "EVP_PKEY_free", None, ADDRESS)
memory_kind = function(_CRYPTO, "BIO_s_mem", ADDRESS)
buffer_new = function(_CRYPTO, "BIO_new", ADDRESS, ADDRESS)
buffer_write = function(_CRYPTO, "BIO_write", INT, ADDRESS, TEXT, INT)
buffer_read = function(_CRYPTO, "BIO_read", INT, ADDRESS, ADDRESS, INT)
errors_clear = function(_CRYPTO, "ERR_clear_error", None)
error_last = function(_CRYPTO, "ERR_peek_last_error", ctypes.c_ulong)
error_reason = function(_CRYPTO, "ERR_reason_error_string", TEXT, ctypes.c_ulong)
