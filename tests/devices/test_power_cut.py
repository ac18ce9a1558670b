# SPDX-License-Identifier: Apache-2.0
"""The power goes at every write of an enrolment and of its undoing (I6, docs/enrolment.md §1).

The real command runs once under strace. Its writes are replayed up to every point, the last one torn at every sector,
onto the files as they were before. Whatever is left: the volume opens by its passphrase; where a token can be read, the
quorum opens it too; a new enrolment succeeds and leaves nothing of the
old one on the disks; and what the disks hold for another volume is never lost.
"""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from devices.bench import PASSPHRASE, VOLUME_SIZE, Bench, opens_with
from devices.luks2_header import read_json
from devices.write_recorder import Appears, Disks, Event, Flush, Vanishes, Write, record
from keyquorum.linux import luks_admin
from keyquorum.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = 32 * 1024  # both copies of a stock header
AREA = 1 << 20  # headers and two keyslots; nothing beyond is ever written


@dataclass
class Recording:
    """A command's writes, and the files before and after."""

    bench: Bench
    volume: str
    disks: list[str]
    anchor: str
    policy: str
    events: list[Event]
    before: Disks
    after: Disks

    @property
    def files(self) -> list[str]:
        """Everything that is judged after a cut."""
        return [self.volume, *self.disks, self.anchor]

    def replayed(self) -> Disks:
        """Return the files after all of it."""
        state = self.before.copy()
        for event in self.events:
            state.apply(event, self.after)
        return state

    def cuts(self) -> Iterator[tuple[str, Disks]]:
        """Give every state that a power cut can leave if writes reach the disk in order.

        A keyslot's own area has 500 sectors that no header refers to while they are written: every 20th cut there.
        """
        state = self.before.copy()
        yield "before the first write", state
        for number, event in enumerate(self.events):
            if isinstance(event, Write):
                in_keyslot = event.path == self.volume and event.offset >= HEADERS
                for torn in event.torn(20 if in_keyslot else 1):
                    partial = state.copy()
                    partial.apply(torn, self.after)
                    yield f"write {number} torn after {len(torn.data)} bytes", partial
            state.apply(event, self.after)
            yield f"after event {number}, {type(event).__name__} {os.path.basename(event.path)}", state

    def reordered(self, seed: int) -> Iterator[tuple[str, Disks]]:
        """Give states in which only some sectors of the writes since the last flush reached the disk."""
        chance, state, pending = random.Random(seed), self.before.copy(), list[Event]()
        for number, event in enumerate(self.events):
            if not isinstance(event, Flush):
                pending.append(event)
                continue
            sectors = [s for p in pending if isinstance(p, Write) for s in p.sectors()]
            partial = state.copy()
            for sector in chance.sample(sectors, chance.randrange(len(sectors) + 1)):
                partial.apply(sector, self.after)
            yield f"some of {len(sectors)} sectors before flush {number} (seed {seed})", partial
            for done in pending:
                state.apply(done, self.after)
            pending = []


def make(bench: Bench, command: str) -> Recording:
    """Run a command under strace, on disks that serve another volume already."""
    volume, disks = bench.volume(), [bench.disk(f"disk-{number}") for number in (1, 2, 3)]
    policy = bench.policy(disks)
    assert bench.enroll(bench.volume("other.img"), policy).code == 0
    if command.startswith("enroll"):
        words = ["enroll", volume, "--policy", policy, "--key-file", bench.key_file, "--yes", *command.split()[1:]]
    else:
        assert bench.enroll(volume, policy, "--with-keyslot").code == 0
        words = ["unenroll", volume, "--yes"]
    files = [volume, *disks, bench.anchor(volume)]
    before = Disks.of(files)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "KEYQUORUM_CONFIG": bench.path("keyquorum.conf")}
    argv = [sys.executable, "-m", "keyquorum.cli.main", *words]
    events = record(argv, environment, files, bench.path("trace"))
    after = Disks.of(files)
    return Recording(bench, volume, disks, bench.anchor(volume), policy, events, before, after)


def by_passphrase(volume: str) -> bool:
    """Say whether the passphrase still opens the volume, by libcryptsetup in this process."""
    with Secret.from_view(PASSPHRASE) as passphrase, luks_admin.open_header(volume) as header:
        luks_admin.volume_key_by_passphrase(header, passphrase).wipe()
    return True


class Judge:
    """Looks at one state after the other."""

    def __init__(self, recording: Recording) -> None:
        self.at = recording
        self.other = recording.bench.volumes[1]
        self.seen: set[bytes] = set()
        self.outcomes: set[str] = set()

    def judge(self, what: str, state: Disks, *, thorough: bool) -> None:
        """Judge a state; `thorough` enrols anew on it."""
        at, bench = self.at, self.at.bench
        state.put(at.files)
        metadata = state.contents[at.volume][1][:HEADERS]
        if metadata not in self.seen:  # what cryptsetup itself thinks of each header is asked once
            self.seen.add(metadata)
            assert opens_with(at.volume, PASSPHRASE), f"{what}: the passphrase does not open the volume"
            state.put(at.files)
        assert by_passphrase(at.volume), what
        said = bench.run("check", at.volume, "--json")
        if said.code == 2:
            assert said.json["message"] == f"{at.volume} is not enrolled", f"{what}: {said.err}"
        else:
            assert said.code == 0, f"{what}: {said.err}"
        self.outcomes.add("enrolled" if said.code == 0 else "plain")
        for disk in at.disks:
            assert sum(entry.volume == self.other for entry in bench.entries(disk)) == 1, (
                f"{what}: a stranger's is lost"
            )
        if thorough:
            self.enrol_anew(what, enrolled=said.code == 0)

    def enrol_anew(self, what: str, *, enrolled: bool) -> None:
        """An administrator comes back and does it again."""
        at, bench = self.at, self.at.bench
        if enrolled:
            said = bench.run("unenroll", at.volume, "--yes")
            assert said.code == 0, f"{what}: {said.err}"
        said = bench.enroll(at.volume, at.policy, "--json")
        assert said.code == 0, f"{what}: {said.err}"
        for disk in at.disks:
            ours = [entry.set_id.hex() for entry in bench.entries(disk) if entry.volume != self.other]
            assert ours == [said.json["set"]], f"{what}: leftovers"
        report = bench.run("check", at.volume, "--json").json
        assert [holder["verdict"] for holder in report["holders"]] == ["valid"] * 3, what
        assert by_passphrase(at.volume), what
        anchors = {os.path.basename(at.anchor), f"{self.other}.json"}
        last = f"{os.path.basename(at.anchor).removesuffix('.json')}.last-epoch"  # of earlier enrolments
        assert set(os.listdir(os.path.dirname(at.anchor))) - {last} == anchors, what


@pytest.mark.parametrize("command", ["enroll", "enroll --with-keyslot", "unenroll"])
def test_a_cut_at_every_write(bench: Bench, command: str) -> None:
    recording = make(bench, command)
    judge, states = Judge(recording), 0
    for number, (what, state) in enumerate(recording.cuts()):
        states += 1
        judge.judge(what, state, thorough=what.startswith("after") or number % 8 == 0)
    assert judge.outcomes == {"plain", "enrolled"}
    assert states > 100


@pytest.mark.parametrize("command", ["enroll --with-keyslot", "unenroll"])
def test_a_cut_while_sectors_are_written_in_any_order(bench: Bench, command: str) -> None:
    recording = make(bench, command)
    judge = Judge(recording)
    for seed in range(4):
        for what, state in recording.reordered(seed):
            judge.judge(what, state, thorough=seed == 0)


def test_the_recording_is_complete(bench: Bench) -> None:
    """Replaying everything gives the files as the command left them, and the order is that of the specification."""
    recording = make(bench, "enroll --with-keyslot")
    last = recording.replayed()
    assert last.contents == recording.after.contents
    assert last.contents[recording.volume][0] == VOLUME_SIZE
    assert all(e.offset + len(e.data) <= AREA for e in recording.events if isinstance(e, Write))
    order = [e.path for e in recording.events if isinstance(e, (Write, Appears))]
    steps = [path for index, path in enumerate(order) if not index or order[index - 1] != path]
    assert steps == [*recording.disks, recording.volume, recording.anchor, recording.volume]
    assert sorted(read_json(recording.volume)["keyslots"]) == ["0", "1"]


def test_unenrolling_removes_the_token_first(bench: Bench) -> None:
    recording = make(bench, "unenroll")
    last = recording.replayed()
    assert last.contents == recording.after.contents
    order = [e.path for e in recording.events if isinstance(e, (Write, Vanishes))]
    steps = [path for index, path in enumerate(order) if not index or order[index - 1] != path]
    assert steps == [recording.volume, *recording.disks, recording.anchor]


def test_what_is_written_is_flushed_before_the_next_step(bench: Bench) -> None:
    """Fragments are on the disks before the token is, and the first copy of the header before the second."""
    recording = make(bench, "enroll")
    dirty: set[str] = set()
    for event in recording.events:
        if isinstance(event, Write):
            assert dirty <= {event.path}, f"{event.path} is written while {dirty} is not flushed"
            dirty.add(event.path)
        elif isinstance(event, Flush):
            dirty.discard(event.path)
        else:
            assert not dirty, "the anchor is written while something is not flushed"
    assert not dirty
