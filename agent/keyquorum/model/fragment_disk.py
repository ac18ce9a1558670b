# SPDX-License-Identifier: Apache-2.0
"""The format of a fragment disk: two alternating slots, each a whole catalogue (docs/holders-disk.md §2).

A change writes the slot that is not in use, with the next generation number. Whatever happens to that write, the
other slot still holds the catalogue as it was, so a torn write never loses a fragment.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_EPOCH
from keyquorum.native import sodium
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARTITION_TYPE = "e5a1b0c3-7d0f-4c1b-9a55-2f6f3c1d8e42"
SLOT_SIZE = 512 * 1024
SLOTS = (0, SLOT_SIZE)
DISK_SIZE = 2 * SLOT_SIZE
HEADER_SIZE = 4096
MAX_CATALOGUE = SLOT_SIZE - HEADER_SIZE
MAX_GENERATION = (1 << 63) - 1
_MAGIC = b"KEYQUORUM DISK\x00\x01"
_VERSION = 1
_CHECKED = 84  # bytes of the header before its own checksum
WHAT = "fragment disk"


class SlotHeader(Record):
    """The first 4096 bytes of a slot. `generation` grows with every write; `digest` is the catalogue's SHA-256."""

    disk_id: bytes
    generation: int
    length: int
    digest: bytes

    def to_bytes(self) -> bytes:
        """Return the block: magic, version, disk id, generation, length, digest, checksum of all that, zeros."""
        block = (
            _MAGIC
            + _VERSION.to_bytes(4, "little")
            + self.disk_id
            + self.generation.to_bytes(8, "little")
            + self.length.to_bytes(8, "little")
            + self.digest
        )
        assert len(block) == _CHECKED
        return (block + sodium.sha256(block)).ljust(HEADER_SIZE, b"\x00")


class Entry(Record):
    """One fragment: whose it is, and its envelope as JSON."""

    volume: str
    set_id: bytes
    epoch: int
    index: int
    envelope: Any


def parse_header(block: bytes) -> SlotHeader | None:
    """Read a slot's first block; None when it is not an intact one."""
    if len(block) < HEADER_SIZE or block[:16] != _MAGIC or block[16:20] != _VERSION.to_bytes(4, "little"):
        return None
    if sodium.sha256(block[:_CHECKED]) != block[_CHECKED : _CHECKED + 32]:
        return None
    header = SlotHeader(
        disk_id=block[20:36],
        generation=int.from_bytes(block[36:44], "little"),
        length=int.from_bytes(block[44:52], "little"),
        digest=block[52:84],
    )
    return header if header.length <= MAX_CATALOGUE and header.generation <= MAX_GENERATION else None


def parse_catalogue(data: bytes, header: SlotHeader) -> tuple[Entry, ...]:
    """Read a slot's catalogue; raises `TamperingError` when it is not what the header's digest says."""
    if len(data) != header.length or sodium.sha256(data) != header.digest:
        raise TamperingError(WHAT, f"generation {header.generation}", "its checksum does not match")
    fields = Fields.read(data, WHAT, MAX_CATALOGUE, TamperingError)
    entries = []
    for index, item in enumerate(fields.rows("fragments", most=4096)):
        row = fields.row("fragments", index, item)
        entries.append(
            Entry(
                volume=row.text("volume", longest=40),
                set_id=row.hexadecimal("set", 16),
                epoch=row.integer("epoch", 1, MAX_EPOCH),
                index=row.integer("index", 1, 255),
                envelope=row.raw_table("envelope"),
            )
        )
        row.finish()
    fields.finish()
    return tuple(entries)


def serialise_slot(disk_id: bytes, generation: int, entries: tuple[Entry, ...]) -> bytes:
    """Return a whole slot's content; raises `ValueError` when the catalogue or the generation is too large for it."""
    if generation > MAX_GENERATION:  # honest disks are worn out long before; a hostile one may claim it
        raise ValueError(f"it was written too often, {generation} times")
    rows = [
        {
            "volume": entry.volume,
            "set": entry.set_id.hex(),
            "epoch": entry.epoch,
            "index": entry.index,
            "envelope": entry.envelope,
        }
        for entry in entries
    ]
    data = strict_json.serialise({"fragments": rows})
    if len(data) > MAX_CATALOGUE:
        raise ValueError(f"the catalogue would have {len(data)} bytes, more than {MAX_CATALOGUE}")
    header = SlotHeader(disk_id=disk_id, generation=generation, length=len(data), digest=sodium.sha256(data))
    return header.to_bytes() + data
