# SPDX-License-Identifier: Apache-2.0
"""Unwrapping an identity as docs/holders-people.md §1 says, with cryptography and none of our own code."""

from __future__ import annotations

import json
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def _quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & 0xFFFFFFFF
        mixed = state[z] ^ state[x]
        state[z] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha §2.2."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for column in range(4):
            _quarter(state, column, column + 4, column + 8, column + 12)
        for diagonal in range(4):
            _quarter(state, diagonal, 4 + (diagonal + 1) % 4, 8 + (diagonal + 2) % 4, 12 + (diagonal + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def unwrap(material: bytes, wrapped: bytes, kind: str, bound: dict[str, str]) -> bytes:
    info = f"keyquorum/v1/{kind}\0".encode() + json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
    key = HKDF(hashes.SHA256(), 32, None, info).derive(material)
    return ChaCha20Poly1305(hchacha20(key, bytes(16))).decrypt(bytes(12), wrapped, info)
