# SPDX-License-Identifier: Apache-2.0
"""Bytes of the TPM 2.0 wire format: numbers, sized buffers and a strict reader (Part 2; docs/holders-tpm.md §3)."""

from __future__ import annotations

from keyquorum.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# TPM_ALG_ID (Part 2 §6.3)
RSA, SHA1, AES, KEYEDHASH, SHA256, SHA384, SHA512, NULL = 0x01, 0x04, 0x06, 0x08, 0x0B, 0x0C, 0x0D, 0x10
RSASSA, ECDSA, ECC, CFB = 0x14, 0x18, 0x23, 0x43

# Handles (Part 2 §7.4)
OWNER, NO_HANDLE, PASSWORD_SESSION, ENDORSEMENT = 0x40000001, 0x40000007, 0x40000009, 0x4000000B
SRK_HANDLE = 0x81000001  # TCG TPM v2.0 Provisioning Guidance, Table 2


def u16(value: int) -> bytes:
    """Marshal a UINT16."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Marshal a UINT32."""
    return value.to_bytes(4, "big")


def sized(data: bytes) -> bytes:
    """Marshal a TPM2B."""
    return len(data).to_bytes(2, "big") + data


class Reader:
    """Takes a buffer apart from front to back; `what` names it in errors.

    Every error is a `RefusedError` with `tampered` set: the bytes come from a chip, a bus or a disk.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def fail(self, problem: str) -> NoReturn:
        """Refuse the buffer."""
        raise RefusedError(f"{self._what} is malformed: {problem}", tampered=True)

    def take(self, size: int) -> bytes:
        """Take exactly `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            self.fail(f"{size} bytes wanted, {len(self._data) - self._at} left")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def u8(self) -> int:
        """Take a UINT8."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Take a UINT16."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Take a UINT32."""
        return int.from_bytes(self.take(4), "big")

    def sized(self, most: int) -> bytes:
        """Take a TPM2B of at most `most` bytes."""
        size = self.u16()
        if size > most:
            self.fail(f"{size} bytes where at most {most} belong")
        return self.take(size)

    def count(self, most: int) -> int:
        """Take the number of items of a list."""
        number = self.u32()
        if number > most:
            self.fail(f"{number} items where at most {most} belong")
        return number

    def rest(self, most: int) -> bytes:
        """Take all that is left, at most `most` bytes."""
        size = len(self._data) - self._at
        if size > most:
            self.fail(f"{size} bytes where at most {most} belong")
        return self.take(size)

    def finish(self) -> None:
        """Refuse bytes that nobody took."""
        if self._at != len(self._data):
            self.fail(f"{len(self._data) - self._at} bytes too many")
