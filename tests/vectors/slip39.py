# SPDX-License-Identifier: Apache-2.0
"""As much of SLIP-0039 as its published vectors need: mnemonics to shares, digest, and the Feistel cipher.

keyquorum does not speak SLIP-39. Its vectors are used because they fix interpolation in GF(2^8)/0x11b at points other
than zero, with digests and known secrets behind it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

_WORDS = {
    word: value
    for value, word in enumerate(
        word
        for line in (Path(__file__).parent / "slip39_words.txt").read_text().splitlines()
        if not line.startswith("#")
        for word in line.split()
    )
}
_GENERATOR = (
    0xE0E040, 0x1C1C080, 0x3838100, 0x7070200, 0xE0E0009, 0x1C0C2412, 0x38086C24, 0x3090FC48, 0x21B1F890, 0x3F3F120,
)  # fmt: skip
SECRET_INDEX, DIGEST_INDEX = 255, 254


@dataclass(frozen=True)
class Mnemonic:
    """One share as its words say it."""

    identifier: int
    extendable: bool
    exponent: int
    group_index: int
    group_threshold: int
    member_index: int
    member_threshold: int
    value: bytes


def decode(words: str) -> Mnemonic:
    """Decode a mnemonic; AssertionError when its checksum is wrong."""
    values = [_WORDS[word] for word in words.split()]
    header = 0
    for value in values[:4]:
        header = header << 10 | value
    extendable = bool(header >> 24 & 1)
    customization = b"shamir_extendable" if extendable else b"shamir"
    assert _checksum([*customization, *values]) == 1, "the RS1024 checksum is wrong"
    body = values[4:-3]
    number = 0
    for value in body:
        number = number << 10 | value
    size = len(body) * 10 // 16 * 2
    return Mnemonic(
        identifier=header >> 25,
        extendable=extendable,
        exponent=header >> 20 & 0xF,
        group_index=header >> 16 & 0xF,
        group_threshold=(header >> 12 & 0xF) + 1,
        member_index=header >> 4 & 0xF,
        member_threshold=(header & 0xF) + 1,
        value=number.to_bytes(size, "big"),
    )


def _checksum(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 20
        check = (check & 0xFFFFF) << 10 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= generator
    return check


def digest_is_right(digest_share: bytes, secret: bytes) -> bool:
    """Say whether the value at 254 is the digest of the value at 255."""
    return digest_share[:4] == hmac.digest(digest_share[4:], secret, "sha256")[:4]


def decrypt(encrypted: bytes, share: Mnemonic, passphrase: bytes) -> bytes:
    """Decrypt the encrypted master secret."""
    salt = b"" if share.extendable else b"shamir" + share.identifier.to_bytes(2, "big")
    half = len(encrypted) // 2
    left, right = encrypted[:half], encrypted[half:]
    for number in (3, 2, 1, 0):
        rounds = (10000 << share.exponent) // 4
        key = hashlib.pbkdf2_hmac("sha256", bytes([number]) + passphrase, salt + right, rounds, dklen=half)
        left, right = right, bytes(a ^ b for a, b in zip(left, key, strict=True))
    return right + left
