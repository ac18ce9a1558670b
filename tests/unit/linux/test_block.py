# SPDX-License-Identifier: Apache-2.0
"""Names of devices, and finding a fragment disk with and without udev: files stand for devices, as open() sees them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import UnavailableError, UsageError
from keyquorum.linux import block
from keyquorum.linux.fragment_disk import identify, show_id
from keyquorum.model.fragment_disk import DISK_SIZE, serialise_slot

if TYPE_CHECKING:
    from pathlib import Path

DISK_ID = bytes(range(16))


def test_names_that_people_write() -> None:
    assert block.resolve("/dev/vdb") == "/dev/vdb"
    assert block.resolve("disk.img") == "disk.img"
    assert block.resolve("UUID=1234-abcd") == "/dev/disk/by-uuid/1234-abcd"
    assert block.resolve("PARTUUID=x") == "/dev/disk/by-partuuid/x"
    assert block.resolve("LABEL=my disk/1") == "/dev/disk/by-label/my\\x20disk\\x2f1"
    assert block.resolve("PARTLABEL=größe") == "/dev/disk/by-partlabel/größe"
    assert block.resolve("ID=../../x") == "/dev/disk/by-id/..\\x2f..\\x2fx"
    assert block.resolve("/dev/disk/by-id/a=b") == "/dev/disk/by-id/a=b"
    with pytest.raises(UsageError, match="FOO is none of UUID, LABEL, PARTUUID, PARTLABEL, ID"):
        block.resolve("FOO=x")


class Machine:
    """Directories that look like /dev and /sys."""

    def __init__(self, root: Path) -> None:
        self.devices, self.sysfs = root / "dev", root / "sys"
        (self.devices / "disk" / "by-partuuid").mkdir(parents=True)
        (self.sysfs / "class" / "block").mkdir(parents=True)

    def disk(self, name: str, disk_id: bytes | None, *, sectors: str = "4096\n") -> Path:
        (self.sysfs / "class" / "block" / name).mkdir()
        (self.sysfs / "class" / "block" / name / "size").write_text(sectors)
        path = self.devices / name.replace("!", "/")
        path.parent.mkdir(exist_ok=True)
        content = serialise_slot(disk_id, 1, ()) if disk_id is not None else b""
        path.write_bytes(content.ljust(DISK_SIZE, b"\0"))
        return path

    def find(self, seconds: float = 10.0) -> str:
        return next(block.fragment_disks(DISK_ID, time.monotonic() + seconds, str(self.devices), str(self.sysfs)))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(block, "_LINK_PATIENCE", 3.0)
    return Machine(tmp_path)


def test_by_udevs_link(machine: Machine) -> None:
    path = machine.disk("vdb1", DISK_ID)
    link = machine.devices / "disk" / "by-partuuid" / show_id(DISK_ID)
    link.symlink_to(path)
    assert machine.find() == str(link)


def test_a_link_that_leads_to_another_disk_is_not_believed(machine: Machine) -> None:
    other, ours = machine.disk("vdb1", bytes(16)), machine.disk("vdc1", DISK_ID)
    (machine.devices / "disk" / "by-partuuid" / show_id(DISK_ID)).symlink_to(other)
    assert machine.find() == str(ours)


def test_without_udev(machine: Machine) -> None:
    for number in range(20):
        machine.disk(f"vd{number}", bytes([number]) * 16)
    ours = machine.disk("cciss!c0d0p1", DISK_ID)
    assert machine.find() == str(ours)


def test_what_is_too_small_mapped_or_unreadable_is_passed_over(machine: Machine) -> None:
    machine.disk("vdb", DISK_ID, sectors="2047\n")
    machine.disk("dm-0", DISK_ID)
    machine.disk("vdc", DISK_ID, sectors="many\n")
    machine.disk("vdd", DISK_ID).unlink()
    with pytest.raises(UnavailableError, match=rf"^no disk with id {show_id(DISK_ID)} is attached$"):
        machine.find()


def test_the_disks_that_are_there_instead_are_named(machine: Machine) -> None:
    for number in range(9, 0, -1):
        machine.disk(f"vd{number}", bytes([number]) * 16)
    machine.disk("vda", None)
    instead = " and ".join(show_id(bytes([number]) * 16) for number in range(1, 5))
    with pytest.raises(UnavailableError, match=rf"^no disk with id {show_id(DISK_ID)} is attached, but {instead}$"):
        machine.find()


def test_no_sysfs_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        next(block.fragment_disks(DISK_ID, time.monotonic() + 5, str(tmp_path), str(tmp_path / "none")))


def test_one_silent_disk_hides_no_other(machine: Machine) -> None:
    """A FIFO is as silent as a disk can be; the descriptor that makes it readable is opened only at the end."""
    silent = machine.disk("vda", None)
    silent.unlink()
    os.mkfifo(silent)
    ours = machine.disk("vdb", DISK_ID, sectors="9999999\n")
    started = time.monotonic()
    assert machine.find(60.0) == str(ours)
    assert time.monotonic() - started < 10


def test_searching_ends_in_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.disk("vda", DISK_ID)
    gate = threading.Event()
    monkeypatch.setattr(block, "identify", lambda _path: gate.wait(30) and None)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r" is attached among those that answer$"):
        machine.find(0.7)
    assert 0.15 < time.monotonic() - started < 10
    gate.set()


def test_a_search_past_its_deadline_reads_nothing(machine: Machine) -> None:
    machine.disk("vda", DISK_ID)
    with pytest.raises(UnavailableError):
        machine.find(-1.0)


def test_sysfs_knows_nothing_of_files(tmp_path: Path) -> None:
    assert block.sysfs_directory(str(tmp_path)) == ""
    assert block.sysfs_directory(str(tmp_path / "none")) == ""


def test_every_disk_with_the_id_is_given_the_link_first(machine: Machine) -> None:
    paths = [machine.disk(f"vd{letter}", DISK_ID) for letter in "abc"]
    (machine.devices / "disk" / "by-partuuid" / show_id(DISK_ID)).symlink_to(paths[1])
    found = list(block.fragment_disks(DISK_ID, time.monotonic() + 10, str(machine.devices), str(machine.sysfs)))
    assert found[0].endswith(show_id(DISK_ID))
    assert sorted(found[1:]) == [str(paths[0]), str(paths[2])]


def test_a_link_that_leads_to_a_silent_disk_hides_no_other(machine: Machine) -> None:
    silent, ours = machine.devices / "silent", machine.disk("vdb", DISK_ID)
    os.mkfifo(silent)
    link = machine.devices / "disk" / "by-partuuid" / show_id(DISK_ID)
    link.symlink_to(silent)
    gate = threading.Event()
    real = identify
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(block, "identify", lambda path: gate.wait(30) and None if path == str(link) else real(path))
        assert machine.find(20.0) == str(ours)
    gate.set()


def test_a_silent_disk_that_udev_names_is_named(machine: Machine) -> None:
    silent = machine.disk("vda", DISK_ID)
    (machine.devices / "disk" / "by-partuuid" / show_id(DISK_ID)).symlink_to(silent)
    gate = threading.Event()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(block, "identify", lambda _path: gate.wait(30) and None)
        with pytest.raises(UnavailableError, match=f"^disk {show_id(DISK_ID)} at {silent} does not answer$"):
            machine.find(0.7)
    gate.set()


def test_hundreds_of_small_disks_push_nobody_out(machine: Machine) -> None:
    """The smallest are read first; whoever attaches many small ones must not make ours one too many."""
    for number in range(300):
        machine.disk(f"vd{number}", bytes(16), sectors="2048\n")
    ours = machine.disk("sda1", DISK_ID, sectors="8192\n")
    assert machine.find(60.0) == str(ours)
