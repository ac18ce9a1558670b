# SPDX-License-Identifier: Apache-2.0
"""Public keys of owners as files: Ed25519 in PEM (RFC 8410), one or several one after the other."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import MalformedError

MAX_FILE = 64 * 1024
_BEGIN = b"-----BEGIN PUBLIC KEY-----"
_END = b"-----END PUBLIC KEY-----"


def parse(data: bytes, what: str) -> tuple[PublicKey, ...]:
    """Read the keys of a file; raises `MalformedError`, also if there is none."""
    *blocks, rest = data.split(_END)
    if not blocks or rest.strip() or not all(block.lstrip().startswith(_BEGIN) for block in blocks):
        raise MalformedError(what, "", "is no public key in PEM")
    found = []
    for block in blocks:
        try:
            key = load_pem_public_key(block.strip() + b"\n" + _END + b"\n")
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise MalformedError(what, "", "is no public key in PEM") from None
        if not isinstance(key, Ed25519PublicKey):
            raise MalformedError(what, "", "is not an Ed25519 key")
        found.append(PublicKey(raw=key.public_bytes_raw()))
    return tuple(found)


def serialise(key: PublicKey) -> bytes:
    """Write a key."""
    loaded = Ed25519PublicKey.from_public_bytes(key.raw)
    return loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
