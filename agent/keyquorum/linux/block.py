# SPDX-License-Identifier: Apache-2.0
"""Block devices: names that people write, and finding a fragment disk with or without udev (docs/holders-disk.md)."""

from __future__ import annotations

import os
import stat
import time

from keyquorum.errors import UnavailableError, UsageError
from keyquorum.linux.fragment_disk import identify, show_id
from keyquorum.mailbox import Mailbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TAGS = {
    "UUID": "by-uuid",
    "LABEL": "by-label",
    "PARTUUID": "by-partuuid",
    "PARTLABEL": "by-partlabel",
    "ID": "by-id",
}
_AT_ONCE = 256
_LAST_WORDS = 0.5  # seconds in which to say what was found and what was not, before that is silence
_LINK_PATIENCE = 1.0  # seconds for the disk that udev names before others are looked at
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


def named_uuid(spec: str) -> str:
    """Return the UUID that a device is asked for by (UUID=, /dev/disk/by-uuid), "" for other names."""
    for prefix in ("UUID=", "/dev/disk/by-uuid/"):
        if spec.startswith(prefix):
            return spec[len(prefix) :].lower()
    return ""


def mapped_uuid(name: str, sysfs: str = "/sys") -> str:
    """Return the device mapper's UUID of a mapping, "" when there is none or it cannot be read."""
    mangled = "".join(
        chr(b) if (chr(b).isalnum() and b < 128) or b in b"#+-.:=@_" else f"\\x{b:02x}" for b in os.fsencode(name)
    )
    try:
        mappings = [entry for entry in os.listdir(f"{sysfs}/class/block") if entry.startswith("dm-")]
    except OSError:
        return ""
    for mapping in mappings:
        if _attribute(f"{sysfs}/class/block/{mapping}/dm/name") == mangled:
            return _attribute(f"{sysfs}/class/block/{mapping}/dm/uuid")
    return ""


def _attribute(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(512).decode("ascii", "replace").rstrip("\n")
    except OSError:  # it went meanwhile
        return ""


def stacked_on(directory: str, uuid: str, depth: int = 8) -> bool:
    """Say whether the block device at `directory` of sysfs is a LUKS2 volume's mapping, or stands on it."""
    wanted = "CRYPT-LUKS2-" + uuid.replace("-", "")
    if _attribute(f"{directory}/dm/uuid").startswith(wanted):
        return True
    if os.path.exists(f"{directory}/partition") and depth > 0:
        return stacked_on(os.path.dirname(os.path.realpath(directory)), uuid, depth - 1)
    try:
        below = os.listdir(f"{directory}/slaves")
    except OSError:
        return False
    return depth > 0 and any(stacked_on(f"{directory}/slaves/{name}", uuid, depth - 1) for name in below)


def lies_on_volume(path: str, uuid: str, sysfs: str = "/sys") -> bool:
    """Say whether a device, or the file system that a file is on, stands on the mapping of a LUKS2 volume."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    return stacked_on(f"{sysfs}/dev/block/{os.major(number)}:{os.minor(number)}", uuid)


def fragment_disks(disk_id: bytes, deadline: float, devices: str = "/dev", sysfs: str = "/sys") -> Iterator[str]:
    """Give the path of every fragment disk with this id; raises `UnavailableError` at the end when there is none.

    udev's link comes first: a disk made by `holder init-disk` has its id as partition UUID. Without udev, for a disk
    without partitions, and when whoever asked wants more, the first blocks of all disks are read side by side, so
    that one silent disk hides no other and a copy, a snapshot for instance, does not hide its original (I3).
    """
    answers, pending, given, others = Mailbox(), set[str](), set[str](), set[str]()
    link = f"{devices}/disk/by-partuuid/{show_id(disk_id)}"
    if os.path.exists(link):
        pending.add(_ask(answers, link))
        for path, found in answers.take(min(_LINK_PATIENCE, deadline - time.monotonic())):
            pending.discard(path)
            if found == disk_id:
                given.add(os.path.realpath(link))
                yield link
    waiting = _candidates(devices, sysfs)
    while pending or waiting:
        while waiting and len(pending) < _AT_ONCE:
            pending.add(_ask(answers, waiting.pop(0)))
        left = deadline - time.monotonic() - _LAST_WORDS
        if left <= 0:
            break
        for path, found in answers.take(left):
            pending.discard(path)
            if found is not None and found != disk_id:
                others.add(show_id(found))
            elif found == disk_id and os.path.realpath(path) not in given:
                given.add(os.path.realpath(path))
                yield path
    if link in pending and not given:
        raise UnavailableError(f"disk {show_id(disk_id)} at {os.path.realpath(link)} does not answer")
    if not given:
        silent = " among those that answer" if pending else ""
        instead = f", but {' and '.join(sorted(others)[:_MAX_NAMED])}" if others else ""
        raise UnavailableError(f"no disk with id {show_id(disk_id)} is attached{silent}{instead}")


def _ask(answers: Mailbox, path: str) -> str:
    """Have a thread say which fragment disk `path` is; return what the answer will be called."""
    answers.run(lambda: (path, identify(path)))
    return path


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
    return [path for _, path in sorted(sized)]
