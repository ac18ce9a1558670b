# SPDX-License-Identifier: Apache-2.0
"""/etc/crypttab as systemd reads it: fields between white space, nothing unescaped, the first line of a name counts.

Debian's boot scripts undo escapes (initramfs/wanted.py reads their copy); systemd does not.
"""

from __future__ import annotations

import os

from keyquorum.errors import UsageError
from keyquorum.record import Record

PATH = "/etc/crypttab"
_MAX_FILE = 1 << 20


class Entry(Record):
    """A line: the mapping's name, the device, the key ("" for none) and the options, in their order."""

    name: str
    source: str
    key: str
    options: tuple[str, ...]

    def option(self, name: str) -> str:
        """Return the value of `name=value`, the last one if there are several, "" when there is none."""
        values = [option.partition("=")[2] for option in self.options if option.startswith(name + "=")]
        return values[-1] if values else ""


def parse(text: bytes) -> tuple[Entry, ...]:
    """Return the entries; lines that systemd would ignore are left out."""
    entries: dict[str, Entry] = {}
    for line in text.split(b"\n"):
        fields = [os.fsdecode(field) for field in line.split(None, 4)]
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        name, source, key, options = (*fields[:4], "", "")[:4]
        tag, equals, value = source.partition("=")
        words = tuple(word for word in options.split(",") if word)
        entries.setdefault(
            name,
            Entry(
                name=name,
                source=tag + equals + _unquoted(value),
                key="" if key in {"none", "-"} else key,
                options=words,
            ),
        )
    return tuple(entries.values())


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def find(name: str, path: str = PATH) -> Entry:
    """Return the entry of a mapping; raises `UsageError` when there is none."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    for entry in parse(text):
        if entry.name == name:
            return entry
    raise UsageError(f"{path} has no line for {name}")
