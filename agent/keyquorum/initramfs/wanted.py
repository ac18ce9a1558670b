# SPDX-License-Identifier: Apache-2.0
"""Which volumes the boot image opens, and which kinds of holder they need."""

from __future__ import annotations

import os
import re

from keyquorum.errors import KeyquorumError
from keyquorum.linux import block
from keyquorum.linux.private_header import copy_header
from keyquorum.record import Record
from keyquorum.unlock.verified_set import anchor_path, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.model.volume_set import VolumeSet

# The escapes that Debian's cryptroot scripts undo by printf '%b'.
_ESCAPE = re.compile(rb"\\(?:(0[0-7]{0,3}|[1-7][0-7]{0,2})|([abfnrtv\\]))")
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\"}


class BootVolume(Record):
    """An enrolled volume of the image's crypttab; `needs` are the kinds of its holders."""

    name: str
    uuid: str
    anchor: str
    volume_set: VolumeSet

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of holder that the set has."""
        return frozenset(placement.kind for placement in self.volume_set.placements)


def boot_volumes(crypttab: str, volumes: str, note: Callable[[str], None]) -> list[BootVolume]:
    """Return the enrolled volumes among the entries of an image's crypttab; what is wrong with one is noted."""
    found = []
    for name, source, key in _entries(crypttab):
        if key not in {"none", "-"}:
            continue
        if not name.isprintable():
            note(f"{name!r} will ask for its passphrase: its name holds characters that do not print")
            continue
        try:
            found.append(_volume(name, source, volumes))
        except KeyquorumError as error:
            if os.path.isdir(volumes) and any(name.endswith(".json") for name in os.listdir(volumes)):
                note(f"{name} will ask for its passphrase: {error.message}")
    return found


def _volume(name: str, source: str, volumes: str) -> BootVolume:
    with copy_header(block.resolve(source)) as header:
        volume_set = verify_enrolment(header, volumes).volume_set
        return BootVolume(name=name, uuid=header.uuid, anchor=anchor_path(header.uuid, volumes), volume_set=volume_set)


def _entries(crypttab: str) -> list[tuple[str, str, str]]:
    """Return name, source and key of each entry; the file's escapes are those of printf's %b."""
    try:
        with open(crypttab, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file if line.strip() and not line.lstrip().startswith("#")]
    except OSError as error:
        raise KeyquorumError(f"{crypttab} cannot be read: {error.strerror}") from None
    return [(_unescape(words[0]), _unescape(words[1]), words[2]) for words in lines if len(words) >= 3]


def _unescape(word: str) -> str:
    return os.fsdecode(_ESCAPE.sub(_escaped, os.fsencode(word)))


def _escaped(match: re.Match[bytes]) -> bytes:
    octal, letter = match.groups()
    return bytes([int(octal, 8) & 0xFF]) if octal else _LETTERS[letter]
