# SPDX-License-Identifier: Apache-2.0
"""Making a fragment disk out of a whole disk, a partition or a file (docs/holders-disk.md §1)."""

from __future__ import annotations

import errno
import os
import stat
import time

from keyquorum.errors import HolderError, KeyquorumError, UsageError
from keyquorum.linux import fragment_disk, run
from keyquorum.linux.block import sysfs_directory
from keyquorum.model.fragment_disk import DISK_SIZE, PARTITION_TYPE, SLOTS
from keyquorum.record import Record
from keyquorum.secret import Secret

_FIRST = 1 << 20  # a partition starts at 1 MiB, as partitioning tools align it
_PARTITION_SIZE = 4 << 20
_SFDISK = ("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always")
_SFDISK_SECONDS = 60.0
_PARTITION_SECONDS = 30.0


class FragmentDisk(Record):
    """A disk just made: the path of its slots, its id, and whether it got a partition table."""

    path: str
    disk_id: bytes
    partitioned: bool


def refuse_unsuitable(device: str, *, force: bool) -> None:
    """Refuse what is too small, in use, or holds something; raises `UsageError`."""
    try:
        descriptor = _open(device)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise UsageError(f"{device} is in use (mounted, mapped, or part of something)") from None
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise KeyquorumError(f"{device} is read-only") from None
        raise UsageError(f"{device} cannot be opened: {error.strerror}") from None
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        start = os.pread(descriptor, _FIRST, 0)
        held = fragment_disk.read_headers(descriptor)
    except OSError as error:
        raise KeyquorumError(f"{device} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    needed = DISK_SIZE + 2 * _FIRST if _is_whole_disk(device) else DISK_SIZE
    if size < needed:
        raise UsageError(f"{device} has {size} bytes, a fragment disk needs {needed}")
    _refuse_fragments(device, held=bool(held), force=force)
    if start.strip(b"\x00") and not force:
        raise UsageError(f"{device} is not empty", "if nothing on it is needed: --force")


def _refuse_fragments(device: str, *, held: bool, force: bool) -> None:
    """Fragments are never lost by mistake: not even on a partition of the disk that was named."""
    paths = [device] if held else []
    if _is_whole_disk(device):
        paths += [path for path in partitions(device) if fragment_disk.identify(path) is not None]
    for path in paths if not force else ():
        try:
            entries = fragment_disk.read(path)[1]
        except HolderError:
            raise UsageError(f"{path} is a fragment disk, but damaged", "if nothing on it is needed: --force") from None
        if entries:
            raise UsageError(
                f"{path} is a fragment disk and holds {len(entries)} fragments",
                f"see them: keyquorum holder list-disk {path}; if none is needed: --force",
            )


def init_disk(device: str) -> FragmentDisk:
    """Write the partition table (on a whole disk) and both slots; everything on the device is lost."""
    disk_id = os.urandom(16)
    disk_id = disk_id[:6] + bytes([disk_id[6] & 0x0F | 0x40, disk_id[7], disk_id[8] & 0x3F | 0x80]) + disk_id[9:]
    whole, path = _is_whole_disk(device), device
    if whole:
        _write_table(device, disk_id)
    try:
        path, descriptor = _open_partition(device) if whole else (device, _open(device))
        try:
            for generation, offset in enumerate(reversed(SLOTS)):
                fragment_disk.write_slot(descriptor, offset, disk_id, generation, ())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise fragment_disk.write_error(path, error) from None
    return FragmentDisk(path=path, disk_id=disk_id, partitioned=whole)


def _write_table(device: str, disk_id: bytes) -> None:
    """Make a GPT whose only partition has our type, and the disk's id as its UUID."""
    table = (
        "label: gpt\n"
        f"start={_FIRST // 512}, size={_PARTITION_SIZE // 512}, type={PARTITION_TYPE}, "
        f"uuid={fragment_disk.show_id(disk_id)}, name=keyquorum\n"
    )
    if _size(device) < _PARTITION_SIZE + 2 * _FIRST:
        table = table.replace(f"size={_PARTITION_SIZE // 512}", f"size={DISK_SIZE // 512}")
    with Secret.from_view(table.encode()) as script:  # not secret, but that is how a program gets its input
        run.run_checked((*_SFDISK, device), run.Limits(seconds=_SFDISK_SECONDS), stdin=script)


def _open_partition(device: str) -> tuple[str, int]:
    """Open a disk's only partition; return its path and descriptor.

    udev reads a new table once more, and for a moment the partition is gone again. While it is open it stays.
    """
    deadline = time.monotonic() + _PARTITION_SECONDS
    while time.monotonic() < deadline:
        found = partitions(device)
        if len(found) == 1:
            try:
                return found[0], _open(found[0])
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENXIO}:
                    raise
        time.sleep(0.05)
    raise KeyquorumError(f"{device} was partitioned, but its partition does not appear", "is udev running?")


def _open(path: str) -> int:
    exclusively = os.O_EXCL if stat.S_ISBLK(os.stat(path).st_mode) else 0  # somebody may have mounted it meanwhile
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusively)


def _size(device: str) -> int:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def _is_whole_disk(device: str) -> bool:
    directory = sysfs_directory(device)
    return bool(directory) and not os.path.exists(f"{directory}/partition")


def partitions(device: str) -> list[str]:
    """Return the paths of a disk's partitions."""
    directory = sysfs_directory(device)
    if not directory:
        return []
    names = [name for name in os.listdir(directory) if os.path.exists(f"{directory}/{name}/partition")]
    return sorted(f"/dev/{name}" for name in names)
