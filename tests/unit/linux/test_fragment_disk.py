# SPDX-License-Identifier: Apache-2.0
"""Fragment disks as files: read, changed, and every way in which that fails said in plain words."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import KeyquorumError, RefusedError, TryAgainError, UnavailableError
from keyquorum.linux import fragment_disk
from keyquorum.model.fragment_disk import DISK_SIZE, HEADER_SIZE, MAX_GENERATION, SLOT_SIZE, Entry, serialise_slot
from unit.model.objects import ENTRY

if TYPE_CHECKING:
    from pathlib import Path

DISK_ID, OTHER_ID = bytes(range(16)), bytes(16)


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(bytes(DISK_SIZE))
    write(str(path), 0, serialise_slot(DISK_ID, 1, ()))
    write(str(path), SLOT_SIZE, serialise_slot(DISK_ID, 0, ()))
    return str(path)


def write(path: str, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


def add(path: str, *indexes: int, disk_id: bytes | None = None) -> None:
    added = tuple(ENTRY.with_(index=index) for index in indexes)
    fragment_disk.change(path, lambda entries: (*entries, *added), disk_id)


def indexes(path: str) -> list[int]:
    return [entry.index for entry in fragment_disk.read(path)[1]]


def test_changes_alternate_between_the_slots(disk: str) -> None:
    for number in range(1, 6):
        add(disk, number)
        header, entries = fragment_disk.read(disk, DISK_ID)
        assert (header.generation, [entry.index for entry in entries]) == (1 + number, list(range(1, number + 1)))
        descriptor = os.open(disk, os.O_RDONLY)
        offsets = [offset for offset, _ in fragment_disk.read_headers(descriptor)]
        os.close(descriptor)
        assert offsets[0] == (SLOT_SIZE if number % 2 else 0)


def test_the_catalogue_before_stands_when_the_newest_is_damaged(disk: str) -> None:
    add(disk, 1)
    add(disk, 2)
    write(disk, HEADER_SIZE, b"damage")
    assert indexes(disk) == [1]
    add(disk, 3)  # goes to the damaged slot, not over the one that still stands
    assert indexes(disk) == [1, 3]
    write(disk, HEADER_SIZE, b"damage")
    assert indexes(disk) == [1]


def test_nothing_is_written_when_nothing_changes(disk: str) -> None:
    before = os.stat(disk).st_mtime_ns
    fragment_disk.change(disk, lambda entries: entries)
    assert os.stat(disk).st_mtime_ns == before
    assert fragment_disk.read(disk)[0].generation == 1


def test_damaged_slots_are_counted(disk: str, tmp_path: Path) -> None:
    add(disk, 1)
    assert fragment_disk.damaged_slots(disk) == 0
    write(disk, SLOT_SIZE + HEADER_SIZE, b"damage")
    assert fragment_disk.damaged_slots(disk) == 1
    write(disk, 0, b"damage")
    assert fragment_disk.damaged_slots(disk) == 2
    with pytest.raises(UnavailableError, match="cannot be read: No such file"):
        fragment_disk.damaged_slots(str(tmp_path / "none"))


def test_identify(disk: str, tmp_path: Path) -> None:
    assert fragment_disk.identify(disk) == DISK_ID
    assert fragment_disk.identify(str(tmp_path / "none")) is None
    assert fragment_disk.identify(str(tmp_path)) is None
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert fragment_disk.identify(str(empty)) is None
    os.mkfifo(tmp_path / "pipe")
    assert fragment_disk.identify(str(tmp_path / "pipe")) is None


def test_read_says_what_is_wrong(disk: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"none is not there$"):
        fragment_disk.read(str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="cannot be read: Is a directory"):
        fragment_disk.read(str(tmp_path))
    with pytest.raises(RefusedError, match=r"is fragment disk 00010203-0405-.*, not 00000000-0000-") as caught:
        fragment_disk.read(disk, OTHER_ID)
    assert caught.value.tampered
    write(disk, HEADER_SIZE, b"damage")
    write(disk, SLOT_SIZE + HEADER_SIZE, b"damage")
    with pytest.raises(RefusedError, match="its checksum does not match"):
        fragment_disk.read(disk)
    os.truncate(disk, 100)
    with pytest.raises(RefusedError, match="holds no intact slot"):
        fragment_disk.read(disk)


def test_a_slot_of_another_disk_is_not_read_for_ours(disk: str) -> None:
    """Whoever copies a slot of one disk onto another does not make the first one's catalogue current there."""
    add(disk, 1)
    write(disk, 0, serialise_slot(OTHER_ID, 99, (ENTRY.with_(index=9),)))
    assert [entry.index for entry in fragment_disk.read(disk, DISK_ID)[1]] == [1]
    add(disk, 2, disk_id=DISK_ID)
    assert [entry.index for entry in fragment_disk.read(disk, DISK_ID)[1]] == [1, 2]


def test_writing_says_what_is_wrong(disk: str, tmp_path: Path) -> None:
    with pytest.raises(KeyquorumError, match=r"none is not there$"):
        add(str(tmp_path / "none"), 1)
    with pytest.raises(KeyquorumError, match=r"cannot be written: Is a directory$"):
        add(str(tmp_path), 1)
    with pytest.raises(RefusedError, match="not 00000000-"):
        add(disk, 1, disk_id=OTHER_ID)
    large = Entry(volume="v", set_id=bytes(16), epoch=1, index=1, envelope={"x": "y" * SLOT_SIZE})
    with pytest.raises(KeyquorumError, match=r"is full: the catalogue would have \d+ bytes") as caught:
        fragment_disk.change(disk, lambda _entries: (large,))
    assert caught.value.hint == "use another fragment disk"
    assert indexes(disk) == []


def test_a_hostile_generation_number(disk: str) -> None:
    write(disk, 0, serialise_slot(DISK_ID, MAX_GENERATION, ()))
    with pytest.raises(KeyquorumError, match="is full: it was written too often"):
        add(disk, 1)
    assert fragment_disk.read(disk)[0].generation == MAX_GENERATION


def test_another_writer_comes_first(disk: str) -> None:
    descriptor = os.open(disk, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TryAgainError, match="is being written by another process") as caught:
        add(disk, 1)
    assert caught.value.exit_code == 5
    os.close(descriptor)
    add(disk, 1)


def test_no_room_below_the_disk_leaves_the_old_catalogue(disk: str) -> None:
    """The kernel refuses the write: here by a limit on file sizes, else by a full or failing medium."""
    add(disk, 1)
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(KeyquorumError, match="cannot be written: File too large"):
            add(disk, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert indexes(disk) == [1]


def test_one_unreadable_slot_does_not_hide_the_other() -> None:
    """A medium error, from the kernel: memory that is not mapped reads as EIO through /proc/self/mem."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] * 3), ctypes.c_long]
    private_anonymous_fixed_noreplace = 0x02 | 0x20 | 0x100000
    address = libc.mmap(SLOT_SIZE, 1 << 14, 3, private_anonymous_fixed_noreplace, -1, 0)
    assert address == SLOT_SIZE, "the address of the second slot is taken"
    try:
        slot = serialise_slot(DISK_ID, 4, (ENTRY,))
        ctypes.memmove(address, slot, len(slot))
        header, entries = fragment_disk.read("/proc/self/mem", DISK_ID)
        assert (header.generation, entries) == (4, (ENTRY,))
        assert fragment_disk.identify("/proc/self/mem") == DISK_ID
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(1 << 14))
    with pytest.raises(UnavailableError, match="cannot be read: Input/output error"):
        fragment_disk.read("/proc/self/mem", DISK_ID)
    assert fragment_disk.identify("/proc/self/mem") is None
