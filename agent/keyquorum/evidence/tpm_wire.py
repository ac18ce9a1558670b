# SPDX-License-Identifier: Apache-2.0
"""Reading what a TPM signed or made, as a verifier does: bounded, whole, with `TamperingError` for everything else.

The TPM client of an unlock has a reader of its own (`tpm2.wire`). It speaks as a holder, refuses with `RefusedError`
and is carried into boot images; docs/decisions/0040-two-tpm-readers.md says why they are not one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    from typing import NoReturn

# TPM_ALG_ID (Part 2 §6.3)
RSA, SHA1, AES, SHA256, SHA384, SHA512, NULL = 0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0D, 0x10
RSASSA, RSAPSS, ECDSA, ECC, CFB = 0x14, 0x16, 0x18, 0x23, 0x43

ENDORSEMENT = 0x4000000B  # TPM_RH_ENDORSEMENT (Part 2 §7.4)

# The hashes in which a verifier believes, by their number on the wire. SHA-1 is a bank that logs have, nothing more.
HASHES = {SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
BANKS = {name: number for number, name in HASHES.items()}
SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}
MAX_DIGEST = 64

_WORDS = {
    RSA: "RSA", SHA1: "SHA-1", AES: "AES", SHA256: "SHA-256", SHA384: "SHA-384", SHA512: "SHA-512", NULL: "none",
    RSASSA: "RSASSA", RSAPSS: "RSAPSS", ECDSA: "ECDSA", ECC: "ECC", CFB: "CFB",
}  # fmt: skip


def word(algorithm: int) -> str:
    """Return an algorithm's name for people."""
    return _WORDS.get(algorithm, f"algorithm {algorithm:#06x}")


def digest(name: str, data: bytes) -> bytes:
    """Hash by a name of `BANKS`."""
    return hashlib.new(name, data).digest()


class Reader:
    """Takes a buffer of at most `cap` bytes apart from front to back; `what` names it in errors."""

    def __init__(self, data: bytes, what: str, cap: int) -> None:
        self._data, self._at, self.what = bytes(data), 0, what
        if len(data) > cap:
            raise TamperingError(what, "", f"{len(data)} bytes are more than the {cap} allowed")

    def fail(self, problem: str, where: str = "") -> NoReturn:
        """Refuse the buffer."""
        raise TamperingError(self.what, where or f"byte {self._at}", problem)

    def take(self, size: int) -> bytes:
        """Take exactly `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            self.fail(f"{size} bytes wanted, {len(self._data) - self._at} left")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        """Take an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """Take a TPM2B of at most `most` bytes."""
        size = self.number(2)
        if size > most:
            self.fail(f"{size} bytes where at most {most} belong")
        return self.take(size)

    def finish(self) -> None:
        """Refuse bytes that nobody took."""
        if self._at != len(self._data):
            self.fail(f"{len(self._data) - self._at} bytes too many")
