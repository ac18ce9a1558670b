# SPDX-License-Identifier: Apache-2.0
"""Records every write of a program to some files, in order, by strace; replays them up to any point.

A power cut leaves a prefix of the writes, the last one torn at a sector. Between two flushes a disk may also have kept
any part of them, in any order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECTOR = 512
# Reading moves a descriptor's position too, but libcryptsetup seeks before it writes; a recording that missed something
# does not replay to what the program left, which a test compares.
_CALLS = (
    "write,pwrite64,pwritev,pwritev2,writev,lseek,openat,fsync,fdatasync,ftruncate,fallocate,rename,renameat,"
    "renameat2,unlink,unlinkat"
)
_LONGEST = 1 << 22
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?")
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
_DATA = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Write:
    """Bytes written to a file at an offset."""

    path: str
    offset: int
    data: bytes

    def torn(self, every: int = 1) -> Iterator[Write]:
        """Give what is on the disk if the power goes during this write: the sectors before each sector boundary."""
        first = SECTOR - self.offset % SECTOR
        for size in range(first, len(self.data), SECTOR * every):
            yield Write(self.path, self.offset, self.data[:size])

    def sectors(self) -> list[Write]:
        """Return the write as one write for each sector."""
        cuts = [0, *range(SECTOR - self.offset % SECTOR, len(self.data), SECTOR), len(self.data)]
        return [Write(self.path, self.offset + start, self.data[start:end]) for start, end in pairwise(cuts)]


@dataclass(frozen=True)
class Flush:
    """Everything written to the file before is on the disk."""

    path: str


@dataclass(frozen=True)
class Appears:
    """A file is replaced by a complete one."""

    path: str


@dataclass(frozen=True)
class Vanishes:
    """A file is removed."""

    path: str


Event = Write | Flush | Appears | Vanishes


def record(argv: Sequence[str], environment: Mapping[str, str], paths: Sequence[str], trace: str) -> list[Event]:
    """Run a program that must succeed; return what it did to `paths`."""
    program = shutil.which("strace")
    assert program, "strace is not installed: apt-get install strace"
    options = ["-f", "-y", "-xx", "-s", str(_LONGEST), "-o", trace, "-e", f"trace={_CALLS}"]
    done = subprocess.run([program, *options, *argv], env=dict(environment), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with open(trace, encoding="ascii") as file:
        return list(_events(_lines(file.read().splitlines()), frozenset(paths)))


def _lines(lines: list[str]) -> Iterator[str]:
    """Join calls that another thread interrupted in the trace."""
    waiting: dict[str, str] = {}
    for line in lines:
        unfinished, resumed = _UNFINISHED.match(line), _RESUMED.match(line)
        if unfinished:
            waiting[unfinished[1]] = unfinished[2]
        elif resumed:
            yield f"{resumed[1]} {waiting.pop(resumed[1])}{resumed[2]}"
        else:
            yield line


def _events(lines: Iterator[str], paths: frozenset[str]) -> Iterator[Event]:
    positions: dict[str, int] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        call, arguments, result = match[1], match[2], int(match[3])
        at, data = _DESCRIPTOR.match(arguments), _DATA.search(arguments)
        if call == "openat":
            positions[str(result)] = 0
        elif call.startswith(("rename", "unlink")):
            path = _text(_DATA.findall(arguments)[-1])
            if path in paths:
                yield Appears(path) if call.startswith("rename") else Vanishes(path)
        elif at is None or _text(at[2]) not in paths:
            continue
        elif call == "lseek":
            positions[at[1]] = result
        elif call in {"fsync", "fdatasync"}:
            yield Flush(_text(at[2]))
        elif call in {"write", "pwrite64"}:
            assert data is not None
            offset = int(arguments.rpartition(", ")[2]) if call == "pwrite64" else positions[at[1]]
            yield Write(_text(at[2]), offset, bytes.fromhex(data[1].replace("\\x", ""))[:result])
            positions[at[1]] = offset + result if call == "write" else positions[at[1]]
        else:
            raise AssertionError(f"teach the recorder {call}")


def _text(escaped: str) -> str:
    return os.fsdecode(bytes.fromhex(escaped.replace("\\x", "")))


@dataclass
class Disks:
    """Files as they are on their disks: size, and content without the zeros at the end."""

    contents: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Sequence[str]) -> Disks:
        """Read files; a missing one stays missing."""
        found = cls()
        for path in paths:
            if os.path.exists(path):
                with open(path, "rb") as file:
                    content = file.read()
                found.contents[path] = len(content), content.rstrip(b"\0")
        return found

    def copy(self) -> Disks:
        """Return a copy that may be changed."""
        return Disks(dict(self.contents))

    def apply(self, event: Event, after: Disks) -> None:
        """Let an event happen; a file that appears is taken whole from `after`, the end of the recording."""
        if isinstance(event, Write):
            size, content = self.contents[event.path]
            end = event.offset + len(event.data)
            content = content[: event.offset].ljust(event.offset, b"\0") + event.data + content[end:]
            self.contents[event.path] = max(size, end), content.rstrip(b"\0")
        elif isinstance(event, Appears):
            self.contents[event.path] = after.contents[event.path]
        elif isinstance(event, Vanishes):
            self.contents.pop(event.path, None)

    def put(self, paths: Sequence[str]) -> None:
        """Make the files what they are here: sparse, and absent where they are missing."""
        for path in paths:
            if path not in self.contents:
                if os.path.exists(path):
                    os.unlink(path)
                continue
            size, content = self.contents[path]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.truncate(size)
