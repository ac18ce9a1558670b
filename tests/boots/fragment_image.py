# SPDX-License-Identifier: Apache-2.0
"""Fragment disks as an attacker with a disk editor has them: rewritten with right checksums, rotten, or foreign."""

import os
from collections.abc import Callable

from guests import disk_image
from guests.disk_image import Partition
from keyquorum.linux.fragment_disk import show_id
from keyquorum.model import fragment_disk
from keyquorum.model.fragment_disk import HEADER_SIZE, PARTITION_TYPE, SLOTS, Entry, SlotHeader

_PARTITION_AT = 1 << 20  # where `keyquorum holder init-disk` begins its only partition
_PARTITION_SIZE = 4 << 20


def entries(image: str) -> tuple[Entry, ...]:
    """What the newest catalogue holds."""
    offset, header = _newest(image)
    return fragment_disk.parse_catalogue(_read(image, offset + HEADER_SIZE, header.length), header)


def disk_id(image: str) -> bytes:
    """The id by which the signed set knows the disk."""
    return _newest(image)[1].disk_id


def rewrite(image: str, edit: Callable[[Entry], Entry]) -> None:
    """Change every fragment in place; all checksums are right afterwards."""
    offset, header = _newest(image)
    changed = tuple(edit(entry) for entry in entries(image))
    _write(image, offset, fragment_disk.serialise_slot(header.disk_id, header.generation, changed))


def rot(image: str) -> None:
    """Flip one bit in the middle of the newest catalogue."""
    offset, header = _newest(image)
    at = offset + HEADER_SIZE + header.length // 2
    _write(image, at, bytes([_read(image, at, 1)[0] ^ 1]))


def make(path: str, disk: bytes, *fragments: Entry) -> str:
    """A new fragment disk with this id and these fragments."""
    partition = Partition("keyquorum", size=_PARTITION_SIZE, type_guid=PARTITION_TYPE, guid=show_id(disk))
    assert disk_image.gpt_image(path, [partition]) == [_PARTITION_AT]
    for generation, offset in enumerate(SLOTS):
        _write(path, _PARTITION_AT + offset, fragment_disk.serialise_slot(disk, generation, fragments))
    return path


def flip_signed_byte(entry: Entry) -> Entry:
    """Another first character in what the owner signed; the envelope still parses."""
    payload = entry.envelope["payload"]
    other = "A" if payload[40] != "A" else "B"
    return entry.with_(envelope={**entry.envelope, "payload": payload[:40] + other + payload[41:]})


def _newest(image: str) -> tuple[int, SlotHeader]:
    slots = []
    for offset in (_PARTITION_AT + slot for slot in SLOTS):
        header = fragment_disk.parse_header(_read(image, offset, HEADER_SIZE))
        if header is not None:
            slots.append((offset, header))
    return max(slots, key=lambda slot: slot[1].generation)


def _read(image: str, offset: int, size: int) -> bytes:
    with open(image, "rb") as file:
        return os.pread(file.fileno(), size, offset)


def _write(image: str, offset: int, data: bytes) -> None:
    with open(image, "r+b") as file:
        os.pwrite(file.fileno(), data, offset)
