# SPDX-License-Identifier: Apache-2.0
"""Everything that disks were told, in order, and the images as a power cut would have left them.

One log may serve several disks: its order is the order in which a machine's writes arrived over all of them.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from guests.extents import sparse_copy

SECTOR = 512


@dataclass(frozen=True)
class Event:
    """A write or a flush on a disk, or a mark that the test made. `number` counts from 0 over all disks."""

    number: int
    kind: Literal["write", "flush", "mark"]
    disk: str
    offset: int = 0
    size: int = 0
    forced: bool = False  # a write that was to be durable before its answer (FUA)
    text: str = ""


class WriteLog:
    """The events, and the data of the writes in a spool file that has no name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._places: list[int] = []
        self._end = 0
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the log: see close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._spool.close()

    @property
    def events(self) -> list[Event]:
        """What happened so far."""
        with self._lock:
            return list(self._events)

    @property
    def writes(self) -> list[Event]:
        """Only the writes."""
        return [event for event in self.events if event.kind == "write"]

    def mark(self, text: str) -> Event:
        """Note a moment of the test between the writes."""
        with self._lock:
            return self._append(Event(len(self._events), "mark", "", text=text), b"")

    def wrote(self, disk: str, offset: int, data: bytes, *, forced: bool) -> Event:
        """Note a write (the server calls this before it writes)."""
        with self._lock:
            event = Event(len(self._events), "write", disk, offset, len(data), forced)
            return self._append(event, data)

    def flushed(self, disk: str) -> Event:
        """Note a flush."""
        with self._lock:
            return self._append(Event(len(self._events), "flush", disk), b"")

    def data(self, event: Event) -> bytes:
        """What a write wrote."""
        return os.pread(self._spool.fileno(), event.size, self._places[event.number])

    def _append(self, event: Event, data: bytes) -> Event:
        os.pwrite(self._spool.fileno(), data, self._end)
        self._places.append(self._end)
        self._events.append(event)
        self._end += len(data)
        return event


def replay(
    log: WriteLog,
    bases: Mapping[str, str],
    directory: str,
    *,
    upto: int,
    torn_sectors: int | None = None,
    lost: Collection[Event] = (),
) -> dict[str, str]:
    """The disks after the first `upto` writes over all of them; their paths by the names in the log.

    `bases` are the images as they were before the first write. With `torn_sectors`, the last write reached the disk
    with its first so many 512-byte sectors only. Writes in `lost` (see `unsettled`) never left the disk's cache.
    """
    images = {name: sparse_copy(base, os.path.join(directory, f"{name}.img")) for name, base in bases.items()}
    writes = log.writes
    if not 0 <= upto <= len(writes):
        raise ValueError(f"{upto} writes asked for, {len(writes)} recorded")
    with _opened(images) as files:
        for number, event in enumerate(writes[:upto], start=1):
            if event in lost:
                continue
            data = log.data(event)
            if number == upto and torn_sectors is not None:
                data = data[: torn_sectors * SECTOR]
            os.pwrite(files[event.disk], data, event.offset)
    return images


def unsettled(log: WriteLog, upto: int) -> list[Event]:
    """Of the first `upto` writes, those that a disk with a cache may lose: not forced, and not followed by a flush.

    A flush counts if it came before the next write, over all disks: the power goes right after write number `upto`.
    """
    open_writes: list[Event] = []
    seen = 0
    for event in log.events:
        if event.kind == "flush":
            open_writes = [write for write in open_writes if write.disk != event.disk]
        elif event.kind == "write":
            if seen == upto:
                break
            seen += 1
            if not event.forced:
                open_writes.append(event)
    return open_writes


@dataclass(frozen=True)
class Cut:
    """A moment at which the power may go: after so many writes, the last of them torn or whole."""

    upto: int
    torn_sectors: int | None = None


def cuts(log: WriteLog, *, torn: bool = True) -> Iterator[Cut]:
    """Every moment between two writes; and, of each write over one sector, once torn in its middle."""
    yield Cut(0)
    for upto, event in enumerate(log.writes, start=1):
        sectors = event.size // SECTOR
        if torn and sectors > 1:
            yield Cut(upto, sectors // 2)
        yield Cut(upto)


@contextlib.contextmanager
def _opened(images: Mapping[str, str]) -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(path, "r+b")) for name, path in images.items()}
        yield {name: file.fileno() for name, file in files.items()}


def differing_sectors(first: str, second: str) -> Sequence[int]:
    """The numbers of the sectors in which two images of one size differ, for messages."""
    with open(first, "rb") as one, open(second, "rb") as other:
        found, number = [], 0
        while block := one.read(SECTOR):
            if block != other.read(SECTOR):
                found.append(number)
            number += 1
    return found
