# SPDX-License-Identifier: Apache-2.0
"""The format of fragment disks: no torn write loses a fragment, no damage is taken for content (docs/holders-disk.md §2)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.model import fragment_disk, strict_json
from keyquorum.model.fragment_disk import (
    DISK_SIZE,
    HEADER_SIZE,
    MAX_CATALOGUE,
    MAX_GENERATION,
    SLOT_SIZE,
    SLOTS,
    Entry,
    SlotHeader,
    parse_catalogue,
    parse_header,
    serialise_slot,
)
from keyquorum.native import sodium
from unit.model.objects import ENTRY, UUID, judge

DISK_ID = bytes(range(16))
SECTOR = 512


def newest(disk: bytes | bytearray) -> tuple[int, tuple[Entry, ...]] | None:
    """What the specification says of a whole disk: the intact slot with the highest generation."""
    found = []
    for offset in SLOTS:
        header = parse_header(bytes(disk[offset : offset + HEADER_SIZE]))
        if header is not None:
            data = bytes(disk[offset + HEADER_SIZE : offset + HEADER_SIZE + header.length])
            try:
                found.append((header.generation, parse_catalogue(data, header)))
            except TamperingError:
                continue
    return max(found, key=lambda slot: slot[0], default=None)


def disk_with(*generations: tuple[int, tuple[Entry, ...]]) -> bytearray:
    disk = bytearray(DISK_SIZE)
    for offset, (generation, entries) in zip(SLOTS, generations, strict=False):
        content = serialise_slot(DISK_ID, generation, entries)
        disk[offset : offset + len(content)] = content
    return disk


def entry(index: int) -> Entry:
    return ENTRY.with_(index=index, envelope={"payload": "A" * 1500})


OLD, NEW = (entry(1),), (entry(1), entry(2))


def test_a_slot_as_the_specification_draws_it() -> None:
    slot = serialise_slot(DISK_ID, 7, OLD)
    catalogue = slot[4096:]
    assert slot[:20] == b"KEYQUORUM DISK\x00\x01" + b"\x01\0\0\0"
    assert slot[20:36] == DISK_ID
    assert [int.from_bytes(slot[at : at + 8], "little") for at in (36, 44)] == [7, len(catalogue)]
    assert slot[52:84] == sodium.sha256(catalogue)
    assert slot[84:116] == sodium.sha256(slot[:84])
    assert not slot[116:4096].strip(b"\0")
    value: Any = strict_json.parse(catalogue, "catalogue", MAX_CATALOGUE, TamperingError)
    assert set(value["fragments"][0]) == {"volume", "set", "epoch", "index", "envelope"}


def test_round_trip_of_whole_disks() -> None:
    assert newest(disk_with((1, OLD), (2, NEW))) == (2, NEW)
    assert newest(disk_with((3, OLD), (2, NEW))) == (3, OLD)
    assert newest(disk_with((0, ()))) == (0, ())
    assert newest(bytearray(DISK_SIZE)) is None


def test_a_write_torn_at_any_sector_leaves_the_old_or_the_new() -> None:
    before, slot = disk_with((1, OLD), (0, ())), serialise_slot(DISK_ID, 2, NEW)
    outcomes = set()
    for cut in range(0, len(slot) + SECTOR, SECTOR):
        disk = bytearray(before)
        disk[SLOT_SIZE : SLOT_SIZE + len(slot[:cut])] = slot[:cut]
        found = newest(disk)
        assert found == ((2, NEW) if cut >= len(slot) else (1, OLD))
        outcomes.add(found[0])
    assert outcomes == {1, 2}


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_sectors_written_in_any_order_leave_the_old_or_the_new(data: st.DataObject) -> None:
    """A disk's cache may write sectors of one request in any order before the power goes."""
    disk, slot = disk_with((5, NEW), (4, OLD)), serialise_slot(DISK_ID, 6, OLD)
    sectors = range((len(slot) + SECTOR - 1) // SECTOR)
    written = data.draw(st.sets(st.sampled_from(list(sectors))))
    for sector in written:
        piece = slot[sector * SECTOR : (sector + 1) * SECTOR]
        disk[SLOT_SIZE + sector * SECTOR : SLOT_SIZE + sector * SECTOR + len(piece)] = piece
    assert newest(disk) in ((5, NEW), (6, OLD))
    if written == set(sectors):
        assert newest(disk) == (6, OLD)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 9000), st.binary(min_size=1, max_size=64))
def test_an_overwritten_piece_never_becomes_content(at: int, noise: bytes) -> None:
    disk = disk_with((5, OLD), (6, NEW))
    disk[SLOT_SIZE + at : SLOT_SIZE + at + len(noise)] = noise
    assert newest(disk) in ((5, OLD), (6, NEW))


def test_both_slots_damaged() -> None:
    disk = disk_with((5, OLD), (6, NEW))
    for offset in SLOTS:
        disk[offset + HEADER_SIZE] ^= 1
    assert newest(disk) is None


def test_every_bit_of_a_header_matters_up_to_its_checksum() -> None:
    block = serialise_slot(DISK_ID, 7, OLD)[:HEADER_SIZE]
    good = parse_header(block)
    assert good is not None
    for at in range(116):
        for bit in range(8):
            assert parse_header(block[:at] + bytes([block[at] ^ 1 << bit]) + block[at + 1 :]) is None
    for size in range(0, HEADER_SIZE, 100):
        assert parse_header(block[:size]) is None
    assert parse_header(block[:116] + b"x" * (HEADER_SIZE - 116)) == good


def block_with(**changes: Any) -> bytes:
    header = SlotHeader(disk_id=DISK_ID, generation=1, length=0, digest=bytes(32))
    return header.with_(**changes).to_bytes()


def test_headers_whose_checksum_is_right_and_whose_numbers_are_not() -> None:
    assert parse_header(block_with(length=MAX_CATALOGUE)) is not None
    assert parse_header(block_with(length=MAX_CATALOGUE + 1)) is None
    assert parse_header(block_with(length=(1 << 64) - 1)) is None
    assert parse_header(block_with(generation=MAX_GENERATION)) is not None
    assert parse_header(block_with(generation=MAX_GENERATION + 1)) is None
    assert parse_header(block_with(generation=(1 << 64) - 1)) is None
    for version in (0, 2, 1 << 31):
        block = bytearray(block_with())
        block[16:20] = version.to_bytes(4, "little")
        block[84:116] = sodium.sha256(bytes(block[:84]))
        assert parse_header(bytes(block)) is None


def test_a_disk_that_was_written_too_often_says_so() -> None:
    assert serialise_slot(DISK_ID, MAX_GENERATION, ())
    with pytest.raises(ValueError, match="was written too often"):
        serialise_slot(DISK_ID, MAX_GENERATION + 1, ())


def test_a_catalogue_larger_than_a_slot_is_not_written() -> None:
    fits = (entry(1).with_(envelope={"x": "y" * (MAX_CATALOGUE - 200)}),)
    assert len(serialise_slot(DISK_ID, 1, fits)) <= SLOT_SIZE
    with pytest.raises(ValueError, match=r"the catalogue would have \d+ bytes, more than 520192"):
        serialise_slot(DISK_ID, 1, (*fits, entry(2)))


def parse_entries(data: bytes) -> tuple[Entry, ...]:
    """Read a catalogue whose checksums are right, as whoever can write the disk can make them."""
    header = SlotHeader(disk_id=DISK_ID, generation=1, length=len(data), digest=sodium.sha256(data))
    return parse_catalogue(data, header)


def test_every_damage_behind_right_checksums_is_refused_or_seen() -> None:
    data = serialise_slot(DISK_ID, 1, (ENTRY, ENTRY.with_(index=3)))[HEADER_SIZE:]
    judge(parse_entries, data, TamperingError, free=("envelope",))


def test_wrong_checksums_come_first() -> None:
    data = serialise_slot(DISK_ID, 1, OLD)[HEADER_SIZE:]
    header = SlotHeader(disk_id=DISK_ID, generation=9, length=len(data), digest=sodium.sha256(data))
    for wrong in (data[:-1], data + b" ", b"", data[:-1] + b"]"):
        with pytest.raises(TamperingError, match=r"^fragment disk: generation 9: its checksum does not match$"):
            parse_catalogue(wrong, header)


def test_many_entries() -> None:
    rows = [{"volume": UUID, "set": "00" * 16, "epoch": 1, "index": 1, "envelope": {}}] * 4097
    assert len(parse_entries(strict_json.serialise({"fragments": rows[:-1]}))) == 4096
    with pytest.raises(TamperingError, match="has 4097 items, more than 4096"):
        parse_entries(strict_json.serialise({"fragments": rows}))
    assert fragment_disk.DISK_SIZE == 1 << 20
