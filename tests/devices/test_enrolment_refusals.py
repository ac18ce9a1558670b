# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything changes (docs/enrolment.md §2): exit code, words, and every byte as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from devices.bench import PASSPHRASE, Bench, Said, cryptsetup, opens_with, snapshot
from devices.luks2_header import damage, read_json, rewrite
from keyquorum.enroll import preconditions
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import fragment_disk, luks_admin
from keyquorum.linux.volume_lock import exclusive
from keyquorum.model.fragment_disk import DISK_SIZE, Entry
from keyquorum.native import crypto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Refusals:
    """A volume, two disks and a policy; `refused` tries to enrol and looks at every byte."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.volume = bench.volume()
        self.disks = [bench.disk(f"disk-{number}") for number in (1, 2)]
        self.policy = bench.policy(self.disks)

    def refused(self, code: int, words: str, *options: str, device: str = "", policy: str = "") -> Said:
        files = [self.volume, *self.disks]
        before = snapshot(*files)
        said = self.bench.enroll(device or self.volume, policy or self.policy, *options)
        assert (said.code, said.out) == (code, ""), said.err
        assert words in said.err, said.err
        assert snapshot(*files) == before, "something was written"
        assert not os.path.exists(self.bench.path("volumes")) or not os.listdir(self.bench.path("volumes"))
        return said

    def then_accepted(self) -> None:
        """Enrol for real, to see that it was the refused thing and nothing else."""
        said = self.bench.enroll(self.volume, self.policy)
        assert said.code == 0, said.err


@pytest.fixture
def refusals(bench: Bench) -> Refusals:
    return Refusals(bench)


def test_what_is_no_luks2_volume(refusals: Refusals) -> None:
    bench = refusals.bench
    noise = bench.write("noise", os.urandom(1 << 20))
    refusals.refused(2, "is not a LUKS2 volume", device=noise)
    empty = bench.write("empty", b"")
    refusals.refused(2, "is not a LUKS2 volume", device=empty)
    old = bench.write("old", b"")
    os.truncate(old, 4 << 20)
    cheap = ("--pbkdf-force-iterations", "1000")
    cryptsetup("luksFormat", "--type", "luks1", *cheap, "--key-file", "-", old, data=PASSPHRASE)
    refusals.refused(2, "is LUKS version 1, not 2", device=old)
    refusals.refused(2, "cannot be opened: No such file or directory", device=bench.path("none"))
    refusals.refused(2, "cannot be opened: Is a directory", device=bench.root)


def test_a_header_that_is_not_intact(refusals: Refusals) -> None:
    damage(refusals.volume)
    refusals.refused(4, "LUKS2 header: of ")


def test_one_intact_copy_is_enough(refusals: Refusals) -> None:
    for copy in (0, 1):
        damage(refusals.volume, (copy,))
        refusals.then_accepted()
        assert refusals.bench.run("check", refusals.volume).code == 0
        assert refusals.bench.run("unenroll", refusals.volume, "--yes").code == 0


def encryption(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["segments"]["0"].update(encryption=name)


@pytest.mark.parametrize("cipher", ["cipher_null-ecb", "cipher_null", "capi:ecb(cipher_null)-plain"])
def test_no_cipher_at_all(refusals: Refusals, cipher: str) -> None:
    rewrite(refusals.volume, encryption(cipher))
    refusals.refused(4, f"segments.0.encryption: {cipher} encrypts nothing")


def test_enrolled_already(refusals: Refusals) -> None:
    refusals.then_accepted()
    before = snapshot(refusals.volume, *refusals.disks, refusals.bench.anchor(refusals.volume))
    said = refusals.bench.enroll(refusals.volume, refusals.policy)
    assert (said.code, said.lines[0]) == (2, f"{refusals.volume} is enrolled already")
    assert snapshot(*before) == before


@pytest.mark.parametrize("options", [("--resilience", "none"), ("--force-offline-reencrypt",)])
def test_a_re_encryption_under_way(refusals: Refusals, options: tuple[str, ...]) -> None:
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", refusals.bench.key_file)
    cryptsetup("reencrypt", "--init-only", *cheap, *options, refusals.volume)
    said = refusals.refused(5, "the volume is being re-encrypted")
    assert said.lines[-1] == "  finish it first: cryptsetup reencrypt --resume-only"


def test_features_nobody_here_checked(refusals: Refusals) -> None:
    rewrite(refusals.volume, lambda table: table["config"].update(requirements={"mandatory": ["opal"]}))
    refusals.refused(2, "the header requires opal, which keyquorum does not support")


POLICIES = {
    "not TOML": ("threshold = ", "not TOML"),
    "unknown holder": ('version = 1\nthreshold = 1\nof = ["x"]\n', "neither a holder nor a group"),
    "another version": ("version = 9\n", "version: 9 is not known here"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_policies_that_do_not_parse(refusals: Refusals, name: str) -> None:
    text, words = POLICIES[name]
    refusals.refused(2, words, policy=refusals.bench.write("bad.toml", text))


def test_policies_that_break_their_own_rules(refusals: Refusals) -> None:
    extra = '[rules]\ndistinct = ["region"]'
    refusals.refused(2, "rules: ", policy=refusals.bench.policy(refusals.disks, extra=extra, name="bad.toml"))
    refusals.refused(2, "cannot be read", policy=refusals.bench.path("none"))


def test_x_wing_where_nobody_could_open_it(refusals: Refusals) -> None:
    policy = refusals.bench.policy(refusals.disks, extra='[fragments]\nkem = "x-wing"', name="pq.toml")
    if not crypto.has_ml_kem():
        refusals.refused(2, "this machine's OpenSSL cannot open X-Wing seals", policy=policy)
    else:
        assert refusals.bench.enroll(refusals.volume, policy).code == 0


def test_keys_that_are_none(refusals: Refusals) -> None:
    bench = refusals.bench
    words = ("enroll", refusals.volume, "--policy", refusals.policy, "--yes")
    before = snapshot(refusals.volume, *refusals.disks)
    bench.write("wrong", b"wrong")
    bench.write("empty", b"")
    bench.write("huge", bytes(16 * 1024 + 1))
    closed = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 900)  # a number that nobody takes meanwhile
    os.close(closed)
    cases = (
        (("--key-file", bench.path("wrong")), 1, "no keyslot opens with this passphrase or key file"),
        (("--key-file", bench.path("empty")), 2, "is empty"),
        (("--key-file", bench.path("huge")), 2, "is larger than 16 KiB"),
        (("--key-file", bench.path("none")), 2, "cannot be read: No such file or directory"),
        (("--volume-key-file", bench.path("wrong")), 2, "is not the volume key of"),
        (("--no-prompt",), 1, "nobody can be asked for volume"),
        (("--key-file", "x", "--volume-key-file", "y"), 2, "not allowed with argument"),
        (("--direct", "--with-keyslot", "--key-file", bench.key_file), 2, "not allowed with argument"),
        (("--pin-fd", f"a={closed}", "--key-file", bench.key_file), 2, f"descriptor {closed} for a is not open"),
    )
    for options, code, said in cases:
        outcome = bench.run(*words, *options)
        assert (outcome.code, said in outcome.err) == (code, True), outcome.err
    assert snapshot(*before) == before
    refusals.then_accepted()


def test_another_enrolment_of_the_same_volume(refusals: Refusals) -> None:
    uuid = cryptsetup("luksUUID", refusals.volume).strip()
    with exclusive(uuid):
        refusals.refused(5, f"another keyquorum is working on volume {uuid}")
    refusals.then_accepted()


def test_a_header_that_changed_before_the_lock_was_ours(refusals: Refusals) -> None:
    """Read before another process enrolled, used after it: seen when read again, and never written over."""
    with luks_admin.open_header(refusals.volume) as header:
        refusals.then_accepted()
        before = snapshot(refusals.volume)
        preconditions.check_header(header)
        with pytest.raises(KeyquorumError, match="cannot be written"):
            luks_admin.set_token(header, b'{"type":"keyquorum","keyslots":[]}')
        assert snapshot(refusals.volume) == before
        header.load()
        with pytest.raises(UsageError, match="is enrolled already"):
            preconditions.check_header(header)


@contextlib.contextmanager
def read_only(path: str) -> Iterator[str]:
    """Give a read-only block device with a file's content."""
    program = shutil.which("losetup")
    assert program, "losetup is not installed: apt-get install mount"
    device = (
        subprocess.run([program, "-r", "-f", "--show", path], capture_output=True, check=True).stdout.decode().strip()
    )
    try:
        yield device
    finally:
        subprocess.run([program, "-d", device], check=True)


def test_a_read_only_volume(refusals: Refusals) -> None:
    with read_only(refusals.volume) as device:
        said = refusals.refused(1, f"{device} is read-only", device=device)
    assert said.lines[-1] == "  make it writable, then try again"


def test_fragment_disks_that_cannot_take_a_fragment(refusals: Refusals) -> None:
    bench, good = refusals.bench, refusals.disks[0]
    plain = bench.write("plain", bytes(DISK_SIZE))
    with read_only(refusals.disks[1]) as device:
        cases = {
            bench.path("none"): "disk-1 (disk) takes no fragment: " + bench.path("none") + " is not there",
            plain: f"disk-1 (disk) takes no fragment: {plain} holds no intact slot",
            device: f"disk-1 (disk) takes no fragment: {device} is read-only",
        }
        for disk, words in cases.items():
            refusals.refused(1, words, policy=bench.policy([disk, good], name="p"))


def test_a_fragment_disk_that_somebody_writes(refusals: Refusals) -> None:
    descriptor = os.open(refusals.disks[0], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    refusals.refused(5, "is being written by another process")
    os.close(descriptor)
    refusals.then_accepted()


def test_what_was_written_before_a_failure_is_taken_back(refusals: Refusals) -> None:
    """The second disk fails: the first one holds nothing afterwards, and the header is as it was."""
    bench = refusals.bench
    before = snapshot(refusals.volume)
    said = bench.enroll(refusals.volume, bench.policy([refusals.disks[0], bench.path("none")], name="p"))
    assert said.code == 1
    assert [bench.entries(disk) for disk in refusals.disks] == [(), ()]
    assert snapshot(refusals.volume) == before
    assert not os.path.exists(bench.anchor(refusals.volume))
    refusals.then_accepted()


def test_one_disk_under_two_names(refusals: Refusals) -> None:
    bench = refusals.bench
    os.symlink(refusals.disks[0], bench.path("alias"))
    said = bench.enroll(refusals.volume, bench.policy([refusals.disks[0], bench.path("alias")], name="p"))
    assert (said.code, "disk-1 and disk-2 are the same disk" in said.err) == (2, True)
    assert bench.entries(refusals.disks[0]) == ()


def fill(volume: str, room: int) -> None:
    """Import tokens until no more than about `room` bytes of metadata are left."""
    area = int(read_json(volume)["config"]["json_size"])
    while (left := area - len(str(read_json(volume)).replace(" ", ""))) > room + 150:
        junk = '{"type":"junk","keyslots":[],"x":"%s"}' % ("x" * min(4000, left - room - 100))
        cryptsetup("token", "import", "--json-file", "-", volume, data=junk.encode())


@pytest.mark.parametrize("options", [(), ("--with-keyslot",)])
def test_a_full_token_area_is_found_before_a_disk_is_written(refusals: Refusals, options: tuple[str, ...]) -> None:
    """With --with-keyslot the keyslot's own description needs room too."""
    outcomes = []
    for room in (1500, 2100, 2300, 2500, 2700, 2900, 3100, 3500):
        volume = refusals.bench.volume(f"vol-{room}")
        fill(volume, room)
        before = snapshot(volume, *refusals.disks)
        said = refusals.bench.enroll(volume, refusals.policy, *options)
        outcomes.append(said.code)
        if said.code == 0:
            assert refusals.bench.run("unenroll", volume, "--yes").code == 0
            continue
        assert (said.code, "has no room for " in said.err or "keyslot cannot be added" in said.err) == (1, True), (
            said.err
        )
        assert snapshot(*before) == before, f"something was written although only {room} bytes are left"
    assert (outcomes[0], outcomes[-1]) == (1, 0)
    assert outcomes == sorted(outcomes, reverse=True)


def test_more_fragments_than_a_set_may_have(bench: Bench) -> None:
    """The header has room, but no reader would take a set of this size: found before anything is written."""
    volume = bench.volume("vol.img", "--luks2-metadata-size", "4m", "--luks2-keyslots-size", "4M")
    disk = bench.disk("disk")
    for count in (75, 90, 120):
        names = ["disk"] * count
        text = f'version = 1\nthreshold = 2\nof = {names}\n[holder.disk]\nkind = "disk"\ndevice = "{disk}"\n'
        policy = bench.write("p.toml", text.replace("'", '"') + "[volume]\nallow_single_holder = true\n")
        before = snapshot(volume, disk)
        said = bench.enroll(volume, policy)
        if said.code == 0:
            assert bench.run("check", volume).code == 0
            assert bench.run("unenroll", volume, "--yes").code == 0
            continue
        assert (said.code, "fragments" in said.err) == (2, True), said.err
        assert snapshot(volume, disk) == before
    assert bench.run("check", volume).code == 2


def test_a_full_fragment_disk(refusals: Refusals) -> None:
    large = Entry(volume="other", set_id=bytes(16), epoch=1, index=1, envelope={"x": "y" * 519_800})
    fragment_disk.change(refusals.disks[0], lambda _entries: (large,))
    said = refusals.refused(1, "is full: the catalogue would have")
    assert said.lines[-1] == "  use another fragment disk"


def test_nobody_to_ask(refusals: Refusals) -> None:
    """Without --yes and without a terminal nothing is assumed."""
    before = snapshot(refusals.volume, *refusals.disks)
    for words in (
        ("enroll", refusals.volume, "--policy", refusals.policy, "--key-file", refusals.bench.key_file),
        ("unenroll", refusals.volume),
        ("holder", "init-disk", refusals.bench.write("new", bytes(DISK_SIZE))),
        ("create", refusals.bench.write("newer", bytes(20 << 20)), "--policy", refusals.policy),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "keyquorum.cli.main", *words],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "KEYQUORUM_CONFIG": refusals.bench.path("keyquorum.conf")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,
        )
        expected = (2, b"is not enrolled") if words[0] == "unenroll" else (2, b"there is no terminal to ask on")
        assert (done.returncode, expected[1] in done.stderr) == (2, True), done.stderr
    assert snapshot(*before) == before


def test_disks_that_are_not_made_fragment_disks(bench: Bench) -> None:
    small = bench.write("small", bytes(DISK_SIZE - 1))
    assert bench.run("holder", "init-disk", small, "--yes").code == 2
    full = bench.write("full", b"x" * DISK_SIZE)
    assert bench.run("holder", "init-disk", full, "--yes").lines == [
        f"{full} is not empty",
        "  if nothing on it is needed: --force",
    ]
    volume, disks, _ = bench.enrolled()
    files = snapshot(small, full, volume, *disks)
    said = bench.run("holder", "init-disk", disks[0], "--yes")
    assert (said.code, "is a fragment disk and holds 1 fragments" in said.err) == (2, True)
    assert bench.run("holder", "init-disk", bench.path("none"), "--yes").code == 2
    assert bench.run("holder", "init-disk", bench.root, "--yes").code == 2
    with read_only(small) as device:
        assert bench.run("holder", "init-disk", device, "--yes").code in {1, 2}
    assert snapshot(*files) == files
    assert bench.run("holder", "init-disk", disks[0], "--yes", "--force").code == 0
    assert bench.run("check", volume, "--json").json["holders"][0]["verdict"] in {"refused", "tampered"}


def test_a_damaged_fragment_disk_can_be_made_anew(bench: Bench) -> None:
    disk = bench.disk("disk")
    with open(disk, "r+b") as file:
        for offset in (4096, 512 * 1024 + 4096):
            file.seek(offset)
            file.write(b"damage")
    said = bench.run("holder", "init-disk", disk, "--yes")
    assert (said.code, "is a fragment disk, but damaged" in said.err) == (2, True), said.err
    assert bench.run("holder", "list-disk", disk).code == 1
    assert bench.run("holder", "init-disk", disk, "--yes", "--force").code == 0
    assert bench.run("holder", "list-disk", disk).code == 0


def test_a_device_that_create_does_not_touch(bench: Bench) -> None:
    """A LUKS volume with one header left, and a fragment disk, are not empty devices."""
    volume, disks, policy = bench.enrolled()
    with open(volume, "r+b") as file:
        file.write(bytes(4096))
    before = snapshot(volume, *disks)
    for device in (volume, disks[0]):
        said = bench.run("create", device, "--policy", policy, "--no-passphrase", "--yes")
        assert said.code == 2, said.err
    assert snapshot(*before) == before
    assert opens_with(volume, PASSPHRASE)


@pytest.mark.parametrize(
    "words", [(), ("help",), ("--version",), ("fly",), ("enroll",), ("unlock",), ("check", "a", "b"), ("holder",)]
)
def test_usage(bench: Bench, words: tuple[str, ...]) -> None:
    said = bench.run(*words)
    assert said.code == (0 if words in {("help",), ("--version",)} else 2)
