# SPDX-License-Identifier: Apache-2.0
"""Reading and writing fragment disks (docs/holders-disk.md §3). The format itself is `model.fragment_disk`."""

from __future__ import annotations

import errno
import fcntl
import os

from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, TryAgainError, UnavailableError
from keyquorum.linux.disk_reader import DiskReader
from keyquorum.model import fragment_disk as disk_format
from keyquorum.model.fragment_disk import Entry, SlotHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int, int], bytes]  # descriptor, size, offset, as os.pread

NO_DISK = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM})


def read_headers(descriptor: int, read: Read = os.pread) -> list[tuple[int, SlotHeader]]:
    """Return the intact slots as (offset, header), newest first; raises OSError when the disk reads nowhere."""
    found, failure = [], None
    for offset in disk_format.SLOTS:
        try:
            header = disk_format.parse_header(read(descriptor, disk_format.HEADER_SIZE, offset))
        except OSError as error:  # a bad sector in one slot hides no fragment in the other
            failure = error
            continue
        if header is not None:
            found.append((offset, header))
    if failure is not None and not found:
        raise failure
    return sorted(found, key=lambda slot: -slot[1].generation)


def identify(path: str) -> bytes | None:
    """Return the disk id of the fragment disk at `path`, or None when it is none or cannot be read."""
    try:
        with DiskReader(path) as disk:
            slots = read_headers(disk.descriptor, disk.pread)
    except OSError:
        return None
    return slots[0][1].disk_id if slots else None


def read(path: str, disk_id: bytes | None = None) -> tuple[SlotHeader, tuple[Entry, ...]]:
    """Return the newest intact catalogue.

    Raises `UnavailableError` when there is no such disk, `RefusedError` when it holds nothing intact or is not the
    disk `disk_id`.
    """
    try:
        with DiskReader(path) as disk:
            return _newest(disk.descriptor, path, disk_id, disk.pread)
    except OSError as error:
        if error.errno in NO_DISK:
            raise UnavailableError(f"{path} is not there") from None
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from None


def _newest(
    descriptor: int, path: str, disk_id: bytes | None, read: Read = os.pread
) -> tuple[SlotHeader, tuple[Entry, ...]]:
    slots = read_headers(descriptor, read)
    problem = "holds no intact slot"
    for offset, header in slots:
        if disk_id is not None and header.disk_id != disk_id:
            problem = f"is fragment disk {show_id(header.disk_id)}, not {show_id(disk_id)}"
            continue
        try:
            data = read(descriptor, header.length, offset + disk_format.HEADER_SIZE)
            return header, disk_format.parse_catalogue(data, header)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except TamperingError as error:
            problem = error.message
    raise RefusedError(f"{path} {problem}", tampered=True)


def damaged_slots(path: str) -> int:
    """Return how many of a disk's two slots are not intact (both are, from the start); raises as `read` does."""
    damaged = 0
    try:
        with DiskReader(path) as disk:
            for offset in disk_format.SLOTS:
                header = disk_format.parse_header(disk.pread(disk.descriptor, disk_format.HEADER_SIZE, offset))
                damaged += header is None or not _is_intact(disk, offset, header)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from None
    return damaged


def _is_intact(disk: DiskReader, offset: int, header: SlotHeader) -> bool:
    try:
        disk_format.parse_catalogue(
            disk.pread(disk.descriptor, header.length, offset + disk_format.HEADER_SIZE), header
        )
    except TamperingError:
        return False
    return True


def change(path: str, edit: Callable[[tuple[Entry, ...]], tuple[Entry, ...]], disk_id: bytes | None = None) -> None:
    """Replace the catalogue by `edit` of it, in the slot not in use, flushed and read back before returning.

    Raises `KeyquorumError` in plain words for a read-only, full or failing disk; `TryAgainError` when another
    process is writing.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise write_error(path, error) from None
    try:
        _lock(descriptor, path)
        header, entries = _newest(descriptor, path, disk_id)
        updated = edit(entries)
        if updated != entries:
            used = next(offset for offset, slot in read_headers(descriptor) if slot == header)
            target = next(offset for offset in disk_format.SLOTS if offset != used)
            write_slot(descriptor, target, header.disk_id, header.generation + 1, updated)
    except ValueError as error:
        raise KeyquorumError(f"{path} is full: {error}", "use another fragment disk") from None
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TryAgainError(f"{path} is being written by another process") from None


def write_slot(descriptor: int, offset: int, disk_id: bytes, generation: int, entries: tuple[Entry, ...]) -> None:
    """Write one slot, flush it, and read it back from the device."""
    content = disk_format.serialise_slot(disk_id, generation, entries)
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], offset + written)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, offset, disk_format.SLOT_SIZE, os.POSIX_FADV_DONTNEED)
    if os.pread(descriptor, len(content), offset) != content:
        raise OSError(errno.EIO, "what was written does not read back")


def write_error(path: str, error: OSError) -> KeyquorumError:
    """Return the plain words for a failed write."""
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return KeyquorumError(f"{path} is read-only", "attach it writable, then try again")
    if error.errno == errno.EBUSY:
        return KeyquorumError(f"{path} is in use (mounted, mapped, or part of something)")
    if error.errno in NO_DISK:
        return KeyquorumError(f"{path} is not there", "attach the fragment disk, then try again")
    return KeyquorumError(f"{path} cannot be written: {error.strerror}")


def show_id(disk_id: bytes) -> str:
    """Return a disk id as the UUID that also names its partition."""
    text = disk_id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
