# SPDX-License-Identifier: Apache-2.0
"""What is said to the security module of a Nitro enclave, and what it answers (docs/attestation-collect.md §5)."""

from __future__ import annotations

from keyquorum.errors import MalformedError, TamperingError, UnavailableError
from keyquorum.evidence import cbor

MAX_REQUEST, MAX_ANSWER = 0x1000, 0x3000  # of the driver
_MAX_NONCE = 512
_WHAT = "the answer of the security module"
_MAP_1, _MAP_3, _NULL = b"\xa1", b"\xa3", b"\xf6"


def _text(value: str) -> bytes:
    return bytes((0x60 | len(value),)) + value.encode("ascii")  # all of them have fewer than 24 characters


def attestation(nonce: bytes) -> bytes:
    """Return the request for a document that carries a nonce; raises `MalformedError` for one that is too long."""
    if not 0 < len(nonce) <= _MAX_NONCE:
        raise MalformedError("the nonce", "", f"has {len(nonce)} bytes, not from 1 to {_MAX_NONCE}")
    fields = _text("user_data") + _NULL + _text("nonce") + cbor.byte_string(nonce) + _text("public_key") + _NULL
    return _MAP_1 + _text("Attestation") + _MAP_3 + fields


def document(answer: bytes) -> bytes:
    """Return the document of an answer; `UnavailableError` if the module gives none, `TamperingError` for rubbish."""
    table = cbor.parse(answer, _WHAT, MAX_ANSWER)
    if isinstance(table, dict) and list(table) == ["Error"]:
        raise UnavailableError(f"the security module of the enclave says {str(table['Error'])[:64]!r}")
    inner = table.get("Attestation") if isinstance(table, dict) and len(table) == 1 else None
    found = inner.get("document") if isinstance(inner, dict) and len(inner) == 1 else None
    if not isinstance(found, bytes) or not found:
        raise TamperingError(_WHAT, "", "has no document")
    return found
