# SPDX-License-Identifier: Apache-2.0
"""Block devices: names that people write, and finding a fragment disk with or without udev (docs/holders-disk.md)."""

from __future__ import annotations

import os
import stat
import time

from keyquorum.errors import UnavailableError, UsageError
from keyquorum.linux.fragment_disk import identify, show_id
from keyquorum.mailbox import Mailbox

_TAGS = {
    "UUID": "by-uuid",
    "LABEL": "by-label",
    "PARTUUID": "by-partuuid",
    "PARTLABEL": "by-partlabel",
    "ID": "by-id",
}
_MAX_SCAN = 256
_MAX_NAMED = 4  # of other fragment disks
_SKIP = ("dm-", "ram", "zram", "sr", "fd", "md", "nbd")


def resolve(spec: str) -> str:
    """Return the path of a device given as a path or as TAG=value, as crypttab has them."""
    tag, found, value = spec.partition("=")
    if not found or "/" in tag:
        return spec
    if tag not in _TAGS:
        raise UsageError(f"{spec}: {tag} is none of {', '.join(_TAGS)}")
    escaped = "".join(c if c.isalnum() or c in "#+-.:=@_" or ord(c) > 127 else f"\\x{ord(c):02x}" for c in value)
    return f"/dev/disk/{_TAGS[tag]}/{escaped}"


def find_fragment_disk(disk_id: bytes, deadline: float, devices: str = "/dev", sysfs: str = "/sys") -> str:
    """Return the path of the fragment disk with this id; raises `UnavailableError` when it is not attached.

    udev's link is tried first: a disk made by `holder init-disk` has its id as partition UUID. Without udev, or for a
    disk without partitions, the first blocks of all disks are read side by side, so that one silent disk hides no
    other (I3).
    """
    link = f"{devices}/disk/by-partuuid/{show_id(disk_id)}"
    if os.path.exists(link) and identify(link) == disk_id:
        return link
    candidates = _candidates(devices, sysfs)
    answers = Mailbox()
    for path in candidates:
        answers.run(lambda path=path: (path, identify(path)))  # type: ignore[misc]  # mypy infers no lambda defaults
    pending, others = len(candidates), set()
    while pending and time.monotonic() < deadline:
        for path, found in answers.take(deadline - time.monotonic()):
            if found == disk_id:
                return str(path)
            if found is not None:
                others.add(show_id(found))
            pending -= 1
    instead = f", but {' and '.join(sorted(others)[:_MAX_NAMED])}" if others else ""
    raise UnavailableError(f"no disk with id {show_id(disk_id)} is attached{instead}")


def sysfs_directory(device: str) -> str:
    """Return the directory of a block device in sysfs, "" for anything else."""
    try:
        info = os.stat(device)
    except OSError:
        return ""
    if not stat.S_ISBLK(info.st_mode):
        return ""
    return os.path.realpath(f"/sys/dev/block/{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}")


def _candidates(devices: str, sysfs: str) -> list[str]:
    """Return disks and partitions that are large enough and not mapped by somebody else, smallest first."""
    sized = []
    try:
        names = os.listdir(f"{sysfs}/class/block")
    except OSError:
        return []
    for name in names:
        if name.startswith(_SKIP):
            continue
        try:
            with open(f"{sysfs}/class/block/{name}/size", "rb") as file:
                sectors = int(file.read(24))
        except (OSError, ValueError):
            continue
        if sectors >= 2048:
            sized.append((sectors, f"{devices}/{name.replace('!', '/')}"))
    return [path for _, path in sorted(sized)[:_MAX_SCAN]]
