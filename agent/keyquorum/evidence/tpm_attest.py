# SPDX-License-Identifier: Apache-2.0
"""What a TPM signs when it quotes PCRs (TPM 2.0 Part 2 §10.12 TPMS_ATTEST, Part 3 §18.4 TPM2_Quote)."""

from __future__ import annotations

from dataclasses import dataclass

from keyquorum.evidence.tpm_wire import HASHES, MAX_DIGEST, Reader, digest, word

MAX_ATTEST = 2048
MAGIC = 0xFF544347  # TPM_GENERATED_VALUE: no restricted key signs foreign data that begin so (Part 2 §6.2)
ATTEST_QUOTE = 0x8018  # TPM_ST_ATTEST_QUOTE (Part 2 §6.9)
_MAX_NAME = 2 + MAX_DIGEST
_MAX_SELECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (Part 2 §10.11); `clock` in milliseconds of power.

    `reset_count` counts starts of the TPM, `restart_count` resumes from sleep since the last start. `safe` is false
    while the clock may show an instant that it showed before.
    """

    reset_count: int
    restart_count: int
    clock: int
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed TPMS_ATTEST of a quote; nothing in it counts before its signature does.

    `selections` are (hash algorithm, PCRs) as the TPM ordered them, repetitions included.
    """

    signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware: int
    selections: tuple[tuple[int, tuple[int, ...]], ...]
    pcr_digest: bytes


def parse(data: bytes, what: str) -> Quote:
    """Read a quote; `TamperingError` says in `where` whether magic, type or shape is wrong."""
    reader = Reader(data, what, MAX_ATTEST)
    if (magic := reader.number(4)) != MAGIC:
        reader.fail(f"{magic:08x}", "magic")
    if (kind := reader.number(2)) != ATTEST_QUOTE:
        reader.fail(f"{kind:#06x}", "type")
    signer, extra_data = reader.sized(_MAX_NAME), reader.sized(MAX_DIGEST)
    clock = _clock(reader)
    firmware = reader.number(8)
    count = reader.number(4)
    if count > _MAX_SELECTIONS:
        reader.fail(f"{count} PCR selections")
    selections = tuple(_selection(reader) for _ in range(count))
    pcr_digest = reader.sized(MAX_DIGEST)
    reader.finish()
    return Quote(
        signer=signer,
        extra_data=extra_data,
        clock=clock,
        firmware=firmware,
        selections=selections,
        pcr_digest=pcr_digest,
    )


def _clock(reader: Reader) -> ClockInfo:
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    if safe not in {0, 1}:  # TPMI_YES_NO
        reader.fail(f"{safe} is neither yes nor no", "safe")
    return ClockInfo(reset_count=resets, restart_count=restarts, clock=clock, safe=bool(safe))


def _selection(reader: Reader) -> tuple[int, tuple[int, ...]]:
    """Take a TPMS_PCR_SELECTION (Part 2 §10.6.2)."""
    algorithm, size = reader.number(2), reader.number(1)
    if size not in {3, 4}:
        reader.fail(f"a PCR selection of {size} bytes")
    mask = int.from_bytes(reader.take(size), "little")
    return algorithm, tuple(pcr for pcr in range(8 * size) if mask >> pcr & 1)


def selection_text(selection: tuple[int, tuple[int, ...]]) -> str:
    """Return a selection in words."""
    algorithm, pcrs = selection
    return f"{HASHES.get(algorithm, word(algorithm))}:{','.join(map(str, pcrs)) or 'none'}"


def pcr_digest(values: dict[int, bytes], hash_name: str) -> bytes:
    """Return the digest that a quote has of PCR values: of all of them, one after another in ascending order."""
    return digest(hash_name, b"".join(values[pcr] for pcr in sorted(values)))
