# SPDX-License-Identifier: Apache-2.0
"""Boots that prove the test machines: a plain Debian 13, an encrypted one under OVMF, and a Debian 12.

The first two start together (two at a time is what two cores carry) and serve all tests of this file.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from guests.disk_image import MEBIBYTE, empty_image, ext4_image, overlay, root_image
from guests.encrypted_root import DEVICE, PROMPT, encrypted_image, encrypted_tree
from guests.errors import CommandError, NotInTimeError
from guests.extents import sparse_copy
from guests.hardware import Disk, kernel_cmdline
from guests.luks_image import TEST_VOLUME
from guests.machine import Machine
from guests.memory import occurrences
from guests.nbd_server import Faults, NbdServer
from guests.places import run_directory, socket_path
from guests.root_tree import guest_tree
from guests.swtpm import TpmState
from guests.tools import run
from guests.warm import warm_machine
from guests.write_log import WriteLog, cuts, replay

NOTHING_MEASURED = re.compile(r"0x(0{64}|F{64})")


@dataclass(frozen=True)
class Bench:
    """Both machines, and what a test needs of their surroundings."""

    plain: Machine
    encrypted: Machine
    recorder: NbdServer
    log: WriteLog
    recorded_before: str
    cut_disk: str
    directory: str


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = str(tmp_path_factory.mktemp("bench"))
    with ExitStack() as stack:
        base = guest_tree()
        tree = encrypted_tree(base)
        log = stack.enter_context(WriteLog())
        before = ext4_image(_empty(directory), os.path.join(directory, "before"), size=16 * MEBIBYTE)
        image = sparse_copy(before, os.path.join(directory, "recorded"))
        path = socket_path(stack.enter_context(run_directory()), "recorder")
        recorder = stack.enter_context(NbdServer(image, path, name="recorded", log=log))
        cut_disk = ext4_image(_empty(directory), os.path.join(directory, "cut"), size=16 * MEBIBYTE)
        root = Disk(overlay(root_image(base), os.path.join(directory, "plain.qcow2")), "root", format="qcow2")
        plain = Machine(
            kernel=base.kernel,
            initrd=base.initrd,
            cmdline=kernel_cmdline(root.device),
            disks=[root, recorder.disk("recorded"), Disk(cut_disk, "cut", cache="writethrough")],
            tpm=TpmState.create(os.path.join(directory, "tpm-plain")),
        )
        crypt = Disk(overlay(encrypted_image(tree), os.path.join(directory, "crypt.qcow2")), "root", format="qcow2")
        encrypted = Machine(
            kernel=tree.kernel,
            initrd=tree.initrd,
            cmdline=kernel_cmdline(DEVICE),
            disks=[crypt],
            tpm=TpmState.create(os.path.join(directory, "tpm-encrypted")),
            ovmf=True,
            memory=512,
        )
        stack.enter_context(plain)
        stack.enter_context(encrypted)
        encrypted.wait_console(PROMPT)
        encrypted.type(TEST_VOLUME.passphrase.decode() + "\n")
        yield Bench(plain, encrypted, recorder, log, before, cut_disk, directory)


def _empty(directory: str) -> str:
    path = os.path.join(directory, "nothing")
    os.makedirs(path, exist_ok=True)
    return path


def test_debian_13_boots_to_multi_user_and_runs_commands(bench: Bench) -> None:
    assert bench.plain.wait_boot() == "running", bench.plain.run("systemctl --failed --no-legend").text
    assert bench.plain.run("systemctl is-active multi-user.target").text == "active"
    assert "VERSION_CODENAME=trixie" in bench.plain.run(["cat", "/etc/os-release"]).text
    content = bytes(range(256)) * 8192
    bench.plain.put("/root/deep/down", content)
    assert bench.plain.get("/root/deep/down") == content
    assert bench.plain.run("sha256sum", data=content).text == bench.plain.run("sha256sum < /root/deep/down").text
    with pytest.raises(CommandError, match="ended with 7"):
        bench.plain.run("exit 7")


def test_a_passphrase_typed_at_the_prompt_opens_the_encrypted_root(bench: Bench) -> None:
    """Also the proof that luks_image writes sectors as dm-crypt reads them."""
    assert bench.encrypted.wait_boot() == "running", bench.encrypted.run("systemctl --failed --no-legend").text
    assert bench.encrypted.run("findmnt -no SOURCE /").text == DEVICE
    table = bench.encrypted.run("dmsetup table cryptroot").text
    assert "sector_size:4096" in table
    assert "iv_large_sectors" not in table
    assert TEST_VOLUME.passphrase.decode() not in bench.encrypted.console_text()


def test_ovmf_measures_itself_and_seabios_does_not(bench: Bench) -> None:
    pcrs = {name: vm.run("tpm2_pcrread sha256:0,1,2,3,4,5,6,7,9").text for name, vm in _both(bench)}
    assert bench.plain.run("test -c /dev/tpmrm0").code == 0
    assert not NOTHING_MEASURED.search(pcrs["encrypted"]), pcrs
    plain, measured = (dict(re.findall(r"(\d+) *: (0x[0-9A-F]+)", text)) for text in pcrs.values())
    assert plain["0"] == plain["7"]  # separators only
    assert len(set(measured.values())) > 5
    assert all(plain[pcr] != measured[pcr] for pcr in plain)


def _both(bench: Bench) -> list[tuple[str, Machine]]:
    return [("plain", bench.plain), ("encrypted", bench.encrypted)]


def test_a_silent_tpm_and_its_return(bench: Bench) -> None:
    bench.plain.tpm.fall_silent()
    asked = bench.plain.start("tpm2_getrandom 8 | wc -c")
    bench.plain.run("true")
    assert not asked.done
    bench.plain.tpm.come_back()
    assert asked.wait().text == "8"


def test_a_planted_secret_is_found_in_memory_and_the_volume_key_is_not(bench: Bench) -> None:
    vm, dump = bench.encrypted, os.path.join(bench.directory, "memory")
    planted = bytes(reversed(b"planted in tmpfs for the search"))  # the reverse, so that this request does not count
    vm.run("rev > /run/planted", data=bytes(reversed(planted)) + b"\n")
    vm.dump_memory(dump)
    assert os.stat(dump).st_size == 512 * MEBIBYTE
    half = len(TEST_VOLUME.volume_key) // 2
    found = occurrences(
        dump,
        {
            "planted": planted,
            "volume key": TEST_VOLUME.volume_key,
            "first half": TEST_VOLUME.volume_key[:half],
            "second half": TEST_VOLUME.volume_key[half:],
        },
    )
    assert found.pop("planted") >= 1
    assert found == {"volume key": 0, "first half": 1, "second half": 1}  # the floor: dm-crypt's key schedule
    os.unlink(dump)


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_disk_comes_and_goes_while_the_machine_runs(bench: Bench, bus: str) -> None:
    vm = bench.plain
    disk = Disk(
        empty_image(os.path.join(bench.directory, bus), MEBIBYTE),
        f"hot-{bus}",
        bus="scsi" if bus == "scsi" else "virtio",
    )
    for _ in range(2):
        vm.plug(disk)
        vm.run(f"udevadm wait --timeout=40 {disk.device}")
        write = f"echo hello | dd of={disk.device} conv=nocreat,fsync status=none"
        vm.run(write)  # with fsync: closing alone need not write, udev has it open too
        vm.unplug(disk.serial)
        assert vm.run(f"test -L {disk.device}", check=False).code == 1
    assert Path(disk.path).read_bytes().startswith(b"hello\n")


def test_what_a_disk_was_told_is_recorded_and_replayed(bench: Bench, tmp_path: Path) -> None:
    vm, device = bench.plain, "/dev/disk/by-id/virtio-recorded"
    vm.run(f"mkdir -p /mnt/r && mount {device} /mnt/r")
    for number in range(3):
        bench.log.mark(f"before {number}")
        vm.run(f"echo {number} > /mnt/r/new && sync /mnt/r/new && mv /mnt/r/new /mnt/r/number && sync -f /mnt/r")
    vm.run("umount /mnt/r")
    kinds = {event.kind for event in bench.log.events}
    assert kinds == {"write", "flush", "mark"}
    bases, seen = {"recorded": bench.recorded_before}, []
    moments = list(cuts(bench.log))
    for moment in [*moments[:: max(1, len(moments) // 12)], moments[-1]]:
        (image,) = replay(bench.log, bases, str(tmp_path), upto=moment.upto, torn_sectors=moment.torn_sectors).values()
        run(["sh", "-c", f"e2fsck -fp {image} >&2 || [ $? -eq 1 ]"])  # the journal heals every one of them
        seen.append(run(["sh", "-c", f"debugfs -R 'cat /number' {image} 2>/dev/null"]).strip())
    assert seen == sorted(seen)
    assert seen[0] == b""
    assert seen[-1] == b"2"
    (last,) = replay(bench.log, bases, str(tmp_path), upto=len(bench.log.writes)).values()
    run(["cmp", last, os.path.join(bench.directory, "recorded")])


def test_a_disk_that_errs_or_says_nothing(bench: Bench) -> None:
    read = "dd if=/dev/disk/by-id/virtio-recorded of=/dev/null bs=4096 count=1 iflag=direct"
    assert bench.plain.run(read).code == 0
    bench.recorder.faults = Faults(reads="error")
    assert "Input/output error" in bench.plain.run(read, check=False).errors.decode()
    bench.recorder.faults = Faults(reads="silent")
    before = bench.recorder.requests
    reading = bench.plain.start(read)
    assert bench.recorder.wait_for_requests(before + 1, 30)
    bench.plain.run("true")
    assert not reading.done
    bench.recorder.faults = Faults()
    assert reading.wait().code == 0


def test_time_outs_show_the_console(bench: Bench) -> None:
    with pytest.raises(NotInTimeError, match=r"(?s)/never seen/.*0\.1 s.*last lines of the console.*multi-user|login"):
        bench.plain.wait_console("never seen", 0.1)


def test_a_power_cut_keeps_what_was_synced_and_loses_the_rest(bench: Bench) -> None:
    """The last test on this machine."""
    vm = bench.plain
    vm.run("mkdir -p /mnt/c && mount -o commit=300 /dev/disk/by-id/virtio-cut /mnt/c")
    vm.run("echo kept > /mnt/c/kept && sync -f /mnt/c && echo lost > /mnt/c/lost")
    vm.kill()
    run(["sh", "-c", f"e2fsck -fp {bench.cut_disk} >&2 || [ $? -eq 1 ]"])
    listing = run(["debugfs", "-R", "ls -p /", bench.cut_disk]).decode()
    assert "/kept/" in listing
    assert "/lost/" not in listing
    assert run(["debugfs", "-R", "cat /kept", bench.cut_disk]) == b"kept\n"


def test_a_frozen_boot_is_thawed_in_seconds_with_its_own_time_chip_and_randomness(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with warm_machine(guest_tree(), str(tmp_path / name), prepare="echo done > /root/prepared") as vm:
            assert vm.get("/root/prepared") == b"done\n"
            assert abs(int(vm.run("date +%s").text) - time.time()) < 30
            assert vm.run("test -c /dev/tpmrm0 && tpm2_getrandom 8 | wc -c").text == "8"
            drawn.append(vm.run("head -c 32 /dev/urandom").output)
            vm.run("rm /root/prepared; sync")  # the next one does not see this
            vm.plug(Disk(empty_image(str(tmp_path / name / "disk"), MEBIBYTE), "late"))
            vm.run("udevadm wait --timeout=40 /dev/disk/by-id/virtio-late")
    assert drawn[0] != drawn[1]


def test_debian_12_boots_and_switches_off_at_the_button(tmp_path: Path) -> None:
    tree = guest_tree("bookworm")
    root = Disk(overlay(root_image(tree), str(tmp_path / "root.qcow2")), "root", format="qcow2")
    with Machine(kernel=tree.kernel, initrd=tree.initrd, cmdline=kernel_cmdline(root.device), disks=[root]) as vm:
        assert vm.wait_boot() == "running", vm.run("systemctl --failed --no-legend").text
        assert "VERSION_CODENAME=bookworm" in vm.run(["cat", "/etc/os-release"]).text
        vm.wait_console("login:")
        vm.type("root\n")
        vm.wait_console("root@guest:~# ")
        vm.powerdown()
