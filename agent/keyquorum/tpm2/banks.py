# SPDX-License-Identifier: Apache-2.0
"""PCR banks: their names, algorithms and digests, and selections of PCRs (Part 2 §10.6)."""

from __future__ import annotations

from keyquorum.native import crypto, sodium
from keyquorum.tpm2.wire import SHA1, SHA256, SHA384, SHA512, Reader, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PCRS = 24
_MAX_BANKS = 16

ALGORITHMS = {"sha1": SHA1, "sha256": SHA256, "sha384": SHA384, "sha512": SHA512}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
NAMES = {algorithm: name for name, algorithm in ALGORITHMS.items()}


def digest(bank: str, data: bytes) -> bytes:
    """Hash public bytes with a bank's algorithm."""
    if bank == "sha256":
        return sodium.sha256(data)
    with crypto.digest(
        bank.upper().encode(), SIZES[bank], data
    ) as found:  # any hash that OpenSSL has, in spite of its name
        return bytes(found.view)


def extend(bank: str, value: bytes, measured: bytes) -> bytes:
    """Return a PCR's value after extending it by a digest (Part 1 §17.2)."""
    return digest(bank, value + measured)


def selection(bank: str, pcrs: Iterable[int]) -> bytes:
    """Marshal a TPML_PCR_SELECTION of one bank."""
    mask = sum(1 << pcr for pcr in pcrs)
    return u32(1) + u16(ALGORITHMS[bank]) + b"\x03" + mask.to_bytes(3, "little")


def read_selections(reader: Reader) -> list[tuple[int, tuple[int, ...]]]:
    """Take a TPML_PCR_SELECTION apart into (algorithm, PCRs), in the TPM's order."""
    found = []
    for _ in range(reader.count(_MAX_BANKS)):
        algorithm, size = reader.u16(), reader.u8()
        if size > 4:
            reader.fail(f"a PCR selection of {size} bytes")
        mask = int.from_bytes(reader.take(size), "little")
        found.append((algorithm, tuple(pcr for pcr in range(8 * size) if mask >> pcr & 1)))
    return found
