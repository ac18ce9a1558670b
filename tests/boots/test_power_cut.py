# SPDX-License-Identifier: Apache-2.0
"""The power goes during an enrolment in a running machine (I6, docs/enrolment.md §1).

The disks remember every write, and are judged as each write left them, the last one torn. test_power_kills.py cuts the
power for real.
"""

import contextlib
import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boots.enrolled import FRAGMENT_DISKS
from boots.known_secrets import Whole
from boots.plugged_volume import (
    ANCHOR,
    DISKS,
    ENROL_SECONDS,
    ENROL_WITH_KEYSLOT,
    ETC,
    STEPS,
    VOLUME,
    blank_disks,
    plug_in,
    tree,
)
from guests.extents import sparse_copy
from guests.luks_image import TEST_VOLUME
from guests.nbd_server import NbdServer
from guests.places import run_directory, socket_path
from guests.tools import run
from guests.warm import warm_machine
from guests.write_log import SECTOR, Event, WriteLog, replay, unsettled
from keyquorum.errors import UsageError

HEADERS = 32 * 1024  # both copies of a stock LUKS2 header
MOST_TEARS = 40  # of one write: a keyslot's area has 500 sectors that no header refers to yet


@dataclass(frozen=True)
class Recorded:
    """What the disks of an enrolment were told, what was on them before, and what the command said."""

    log: WriteLog
    before: dict[str, str]
    after: dict[str, str]
    said: list[str]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    directory = str(tmp_path_factory.mktemp("recorded"))
    images = blank_disks(directory)
    with contextlib.ExitStack() as stack:
        log, sockets = stack.enter_context(WriteLog()), stack.enter_context(run_directory())
        servers = {
            name: stack.enter_context(NbdServer(path, socket_path(sockets, name), name=name))
            for name, path in images.items()
        }
        with warm_machine(tree(), directory) as vm:
            plug_in(vm, {name: server.disk(name) for name, server in servers.items()}, new=True)
            vm.run("sync")
            for server in servers.values():
                server.log = log  # from here on; what comes before the copy is in both, which changes nothing
            before = {name: sparse_copy(path, f"{path}.before") for name, path in images.items()}
            said = vm.run(ENROL_WITH_KEYSLOT, timeout=ENROL_SECONDS).errors.decode().splitlines()
            vm.run("sync")
        yield Recorded(log, before, images, [line.removeprefix("keyquorum: ").strip() for line in said])


def test_the_recording_is_complete(recorded: Recorded, tmp_path: Path) -> None:
    """Each step was told, and what was recorded leads to what the disks hold."""
    assert [step for line in recorded.said for step in STEPS if line.endswith(step)] == list(STEPS), recorded.said
    last = replay(recorded.log, recorded.before, str(tmp_path), upto=len(recorded.log.writes))
    for name, path in last.items():
        run(["cmp", path, recorded.after[name]])
    first = {event.disk: event.number for event in reversed(recorded.log.writes)}
    assert set(first) == set(DISKS)
    assert max(first[name] for name in FRAGMENT_DISKS) < first[VOLUME], "fragments are on their disks before the token"


class Judge:
    """Looks at disks as a power cut left them. What it has seen before it does not look at again."""

    def __init__(self) -> None:
        self.outcomes: dict[bytes, str] = {}
        self._passphrase: set[bytes] = set()
        self._anchors: dict[bytes, bytes] = {}

    def judge(self, what: str, images: dict[str, str]) -> None:
        """The passphrase opens the volume; if there is a token, so does the quorum, by an anchor that is there."""
        header = _content(images[VOLUME], HEADERS)
        if header not in self._passphrase:
            _open_by_passphrase(what, images[VOLUME])
            self._passphrase.add(header)
        etc = _content(images[ETC])
        if etc not in self._anchors:
            self._anchors[etc] = _anchor(images[ETC])
        state = b"".join([header, etc, *(_content(images[name]) for name in FRAGMENT_DISKS)])
        if state not in self.outcomes:
            self.outcomes[state] = self._quorum(what, images, self._anchors[etc])

    def _quorum(self, what: str, images: dict[str, str], anchor: bytes) -> str:
        whole = Whole(images[VOLUME], anchor, tuple(images[name] for name in FRAGMENT_DISKS))
        try:
            secrets = whole.secrets(TEST_VOLUME.volume_key)
        except UsageError as error:
            if error.message != f"{images[VOLUME]} is not enrolled":
                raise AssertionError(f"{what}: {error.message}") from None
            return "plain"
        assert secrets["volume key"] == TEST_VOLUME.volume_key
        return "enrolled"


def _content(path: str, size: int = -1) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).digest()


def _open_by_passphrase(what: str, volume: str) -> None:
    copy = sparse_copy(volume, f"{volume}.copy")  # cryptsetup mends what is torn, the judge must not
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", copy]
    done = subprocess.run(argv, input=TEST_VOLUME.passphrase, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"{what}: the passphrase does not open the volume: {done.stderr.decode()}"


def _anchor(etc: str) -> bytes:
    """The trust anchor as the machine finds it at its next boot, b"" if there is none."""
    run(["sh", "-c", f"e2fsck -fp {etc} >/dev/null || [ $? -eq 1 ]"])
    return run(["sh", "-c", f"debugfs -R 'cat {ANCHOR}' {etc} 2>/dev/null"])


def test_every_write_may_be_the_last_and_torn(recorded: Recorded, tmp_path: Path) -> None:
    judge = Judge()
    for upto, event in enumerate([None, *recorded.log.writes]):
        for torn in _tears(event):
            images = replay(recorded.log, recorded.before, str(tmp_path), upto=upto, torn_sectors=torn)
            judge.judge(f"{torn} sectors of write {upto}, {event}", images)
            if event is not None and torn is not None:  # once more, with half of the next sector
                data = recorded.log.data(event)[torn * SECTOR :][: SECTOR // 2]
                with open(images[event.disk], "r+b") as image:
                    os.pwrite(image.fileno(), data, event.offset + torn * SECTOR)
                judge.judge(f"{torn} and a half sectors of write {upto}, {event}", images)
    assert set(judge.outcomes.values()) == {"plain", "enrolled"}
    assert len(judge.outcomes) > 50


def _tears(event: Event | None) -> list[int | None]:
    """After which of its sectors a write is torn; None for the whole of it. File systems have journals of their own."""
    if event is None or event.disk == ETC:
        return [None]
    sectors = event.size // SECTOR
    return [*range(0, sectors, 1 + sectors // MOST_TEARS), None]


def test_what_was_not_flushed_may_be_lost(recorded: Recorded, tmp_path: Path) -> None:
    """Disks with a cache: of what they were not told to make sure, any part may be gone."""
    judge, chance = Judge(), random.Random(2)
    for upto in range(1, len(recorded.log.writes) + 1):
        open_writes = unsettled(recorded.log, upto)
        losses = [[], open_writes, *([write] for write in open_writes[:4])]
        losses += [chance.sample(open_writes, chance.randrange(len(open_writes) + 1)) for _ in range(2)]
        for lost in losses:
            images = replay(recorded.log, recorded.before, str(tmp_path), upto=upto, lost=lost)
            judge.judge(f"write {upto}, without {lost}", images)
    assert set(judge.outcomes.values()) == {"plain", "enrolled"}
