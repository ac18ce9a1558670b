# SPDX-License-Identifier: Apache-2.0
"""The command line on a running system with a real device mapper: every way to open, every exit code (docs/cli.md).

One machine, thawed, with disks plugged in; the tests build on each other in the order of this file.
"""

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from boots.data_volume import (
    CONTENT,
    TWO_OF_THREE,
    Volume,
    data_tree,
    enrol,
    volume_image,
)
from boots.fragment_disks import init_fragment_disks
from guests.disk_image import MEBIBYTE, empty_image
from guests.hardware import Disk
from guests.machine import Machine
from guests.warm import warm_machine

WRAPPED = Volume("wrapped", TWO_OF_THREE)
DIRECT = Volume("direct", TWO_OF_THREE, enroll="--direct")
KEYSLOT = Volume("keyslot", TWO_OF_THREE, enroll="--with-keyslot")
MODES = (WRAPPED, DIRECT, KEYSLOT)
FRESH = Disk("", "fresh", bus="scsi")
COMMAND_SECONDS = 300.0  # a passphrase is stretched under emulation


@dataclass(frozen=True)
class Bench:
    """The machine, and the fragment disks by serial number."""

    vm: Machine
    fragments: dict[str, Disk]

    def keyquorum(self, words: str, code: int = 0) -> Any:
        """Run a command with --json; its object after the exit code was checked."""
        done = self.vm.run(f"keyquorum {words} --json", check=False, timeout=COMMAND_SECONDS)
        assert done.code == code, done.output + done.errors
        return json.loads(done.output) if done.output else {}

    def plug(self, serial: str) -> None:
        """Attach a fragment disk and wait for its partition."""
        self.vm.plug(self.fragments[serial])
        self.vm.run(f"udevadm wait --timeout=40 /dev/disk/by-id/virtio-{serial}-part1")

    def pcr_15(self) -> bytes:
        """The value of PCR 15 in the SHA-256 bank."""
        said = self.vm.run("tpm2_pcrread sha256:15").text
        found = re.search(r"15 *: 0x([0-9A-Fa-f]{64})", said)
        assert found, said
        return bytes.fromhex(found[1])

    def close(self, name: str) -> None:
        """Close a mapping."""
        self.vm.run(f"cryptsetup close {name}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = str(tmp_path_factory.mktemp("command-line"))
    fragments = {
        name: Disk(empty_image(os.path.join(directory, name), 8 * MEBIBYTE), name) for name in ("frag-a", "frag-b")
    }
    fresh = Disk(empty_image(os.path.join(directory, "fresh"), 48 * MEBIBYTE), FRESH.serial, bus=FRESH.bus)
    with warm_machine(data_tree(), directory, prepare="modprobe dm-crypt") as vm:
        for disk in fragments.values():
            vm.plug(disk)
            vm.run(f"udevadm wait --timeout=40 {disk.device}")
        init_fragment_disks(vm, fragments)
        for volume in MODES:
            vm.plug(
                Disk(
                    volume_image(os.path.join(directory, volume.name), volume.luks, volume.name),
                    volume.name,
                    bus="scsi",
                )
            )
            vm.run(f"udevadm wait --timeout=40 /dev/disk/by-uuid/{volume.luks.uuid}")
        vm.plug(fresh)
        vm.run(f"udevadm wait --timeout=40 {fresh.device}")
        yield Bench(vm, fragments)


@pytest.mark.parametrize("volume", MODES, ids=[volume.name for volume in MODES])
def test_a_volume_enrolled_in_each_mode_opens(bench: Bench, volume: Volume) -> None:
    name, luks = volume.name, volume.luks
    printed = enrol(bench.vm, volume)
    assert printed["mode"] == ("direct" if volume is DIRECT else "wrapped")
    assert (printed["keyslot"] >= 0) == (volume is KEYSLOT)
    before = bench.pcr_15()
    opened = bench.keyquorum(f"unlock UUID={luks.uuid} --name {name}")
    assert (opened["outcome"], opened["missing"]) == ("opened", 0)
    assert [holder["verdict"] for holder in opened["holders"]].count("valid") >= 2
    table = bench.vm.run(f"dmsetup table --showkeys {name}").text
    assert f":64:logon:cryptsetup:{luks.uuid}-d0" in table
    assert luks.volume_key.hex() not in table
    where = f"/mnt/{name}"
    shown = bench.vm.run(f"mkdir -p {where} && mount /dev/mapper/{name} {where} && cat {where}/content; umount {where}")
    assert shown.output.decode() == CONTENT.format(name)
    measured = hmac.digest(luks.volume_key, f"cryptsetup:{name}:{luks.uuid}".encode(), "sha256")
    assert bench.pcr_15() == hashlib.sha256(before + measured).digest()
    assert f"cryptsetup:{name}:{luks.uuid}" in bench.vm.run("cat /run/log/systemd/tpm2-measure.log").text
    again = bench.keyquorum(f"unlock UUID={luks.uuid} --name {name}")
    assert (again["outcome"], again["holders"]) == ("already open", [])
    bench.close(name)


def test_a_created_volume_opens_from_its_fragments_alone(bench: Bench) -> None:
    bench.vm.put("/root/policy.toml", TWO_OF_THREE.encode())
    words = "--policy /root/policy.toml --no-passphrase --no-boot-image --yes"
    created = bench.keyquorum(f"create {FRESH.device} {words}")
    assert created["command"] == "create"
    assert "Keyslots:\nTokens:" in bench.vm.run(f"cryptsetup luksDump {FRESH.device}").text
    bench.keyquorum(f"unlock {FRESH.device} --name fresh --options discard")
    assert "allow_discards" in bench.vm.run("dmsetup table fresh").text
    bench.vm.run("mkfs.ext4 -q /dev/mapper/fresh")
    bench.close("fresh")
    refused = bench.vm.run(f"keyquorum unenroll {FRESH.device} --yes --no-boot-image", check=False)
    assert refused.code == 2
    assert b"no keyslot of" in refused.errors


def test_status_and_check_say_what_is_there_and_open_nothing(bench: Bench) -> None:
    volumes = bench.keyquorum("status")["volumes"]
    assert {volume.luks.uuid for volume in MODES} < {found["volume"] for found in volumes}
    assert not [found for found in volumes if "error" in found]
    checked = bench.keyquorum(f"check UUID={WRAPPED.luks.uuid}")
    assert [holder["verdict"] for holder in checked["holders"]] == ["valid", "valid", "valid"]
    assert checked["outcome"] == "quorum"
    said = bench.vm.run(f"keyquorum check UUID={WRAPPED.luks.uuid} 2>&1").text
    assert re.search(r"^keyquorum: +tpm +\(tpm\): valid in [\d.]+ s$", said, re.MULTILINE), said
    assert bench.vm.run("ls /dev/mapper").text == "control"


def test_the_key_is_linked_into_a_keyring_of_choice(bench: Bench) -> None:
    bench.keyquorum(f"unlock UUID={WRAPPED.luks.uuid} --name linked --link-key @u::%user:kept-for-later")
    (key,) = [line for line in bench.vm.get("/proc/keys").decode().splitlines() if "kept-for-later" in line]
    assert re.search(r" user +kept-for-later: 64$", key)
    bench.close("linked")


def test_a_missing_disk_is_waited_for_while_it_may_come(bench: Bench) -> None:
    """And without it the quorum is not reached, which is exit code 3."""
    for serial in bench.fragments:
        bench.vm.unplug(serial)
    refused = bench.keyquorum(f"unlock UUID={WRAPPED.luks.uuid} --name late", code=3)
    assert (refused["outcome"], refused["missing"]) == ("failed", 1)
    assert {holder["name"]: holder["verdict"] for holder in refused["holders"]} == {
        "disk-a": "unavailable",
        "tpm": "valid",
        "disk-b": "unavailable",
    }
    assert bench.keyquorum(f"check UUID={WRAPPED.luks.uuid}", code=3)["missing"] == 1
    job = bench.vm.start(f"keyquorum unlock UUID={WRAPPED.luks.uuid} --name late --timeout 90", timeout=COMMAND_SECONDS)
    bench.vm.run("sleep 5")
    assert not job.done
    bench.plug("frag-b")
    assert b"disk-b (disk): valid" in job.wait().errors
    bench.close("late")
    bench.plug("frag-a")


def test_a_tpm_that_falls_silent_is_not_waited_for(bench: Bench) -> None:
    """Nor by the end of the process: the kernel, which gives a command two minutes, has not given this one up yet."""
    bench.vm.tpm.fall_silent()
    try:
        done = bench.vm.run(f"keyquorum unlock UUID={WRAPPED.luks.uuid} --name silent --json", timeout=COMMAND_SECONDS)
        opened = json.loads(done.output)
        assert {holder["name"]: holder["verdict"] for holder in opened["holders"]} == {
            "disk-a": "valid",
            "tpm": "not needed",
            "disk-b": "valid",
        }
        assert "PCR 15 was not extended: the TPM at /dev/tpmrm0 does not answer" in done.errors.decode()
        assert "Operation Timed out" not in bench.vm.run("dmesg | grep -i tpm || true").text
    finally:
        bench.vm.tpm.come_back()
    bench.close("silent")
    before = bench.pcr_15()
    bench.keyquorum(f"unlock UUID={WRAPPED.luks.uuid} --name silent")
    assert bench.pcr_15() != before, "the TPM was not used again"
    bench.close("silent")


def test_what_fails_has_its_own_exit_code(bench: Bench) -> None:
    """1 failed, 2 usage, 4 tampering refused, 5 try again; 0 and 3 are above."""
    volume = WRAPPED.luks.uuid
    size = 2 * MEBIBYTE // 512
    bench.vm.run(f"dmsetup create broken --table '0 {size} error'")
    assert bench.keyquorum("unlock /dev/mapper/broken --name never", code=1)["outcome"] == "failed"
    bench.vm.run("dmsetup remove broken")
    assert bench.keyquorum("unlock /dev/vda --name never", code=2)["outcome"] == "failed"  # not LUKS2
    locked = f"flock /run/keyquorum/{volume}.lock keyquorum unenroll UUID={volume} --yes --no-boot-image"
    assert bench.vm.run(locked, check=False).code == 5
    device = f"/dev/disk/by-uuid/{volume}"
    number = bench.vm.run(f"cryptsetup luksDump {device} | sed -n 's/^  \\([0-9]*\\): keyquorum$/\\1/p'").text
    bench.vm.run(f"cryptsetup token export --token-id {number} --json-file /root/token.json {device}")
    other = f"/dev/disk/by-uuid/{DIRECT.luks.uuid}"
    replace = "cryptsetup token import --token-replace --token-id"
    bench.vm.run(f"cryptsetup token export --token-id 0 {other} | {replace} {number} {device}")
    refused = bench.keyquorum(f"unlock {device} --name never", code=4)
    assert (refused["outcome"], refused["holders"]) == ("failed", [])
    bench.vm.run(f"{replace} {number} --json-file /root/token.json {device}")
    bench.keyquorum(f"unlock {device} --name again")
    bench.close("again")


def test_access_is_regained_and_a_new_passphrase_added(bench: Bench) -> None:
    device = f"/dev/disk/by-uuid/{DIRECT.luks.uuid}"
    bench.vm.put("/root/new", b"a passphrase of today", mode=0o600)
    before = bench.pcr_15()
    bench.keyquorum(f"recover {device} --name rescue --add-passphrase --new-key-file /root/new")
    assert f"{DIRECT.luks.uuid}-d0" in bench.vm.run("dmsetup table rescue").text
    measured = hmac.digest(DIRECT.luks.volume_key, f"cryptsetup:rescue:{DIRECT.luks.uuid}".encode(), "sha256")
    assert bench.pcr_15() == hashlib.sha256(before + measured).digest()
    bench.close("rescue")
    bench.vm.run(f"cryptsetup open --test-passphrase --key-file /root/new {device}", timeout=300)


@pytest.mark.parametrize("volume", MODES, ids=[volume.name for volume in MODES])
def test_what_is_given_back_is_a_plain_volume(bench: Bench, volume: Volume) -> None:
    device = f"/dev/disk/by-uuid/{volume.luks.uuid}"
    slots = "cryptsetup luksDump {} | sed -n '/^Keyslots:/,/^Tokens:/s/^  \\([0-9]*\\): luks2$/\\1/p'"
    bench.keyquorum(f"unenroll {device} --yes --no-boot-image")
    dump = bench.vm.run(f"cryptsetup luksDump {device}").text
    assert "keyquorum" not in dump
    assert re.search(r"^Tokens:\nDigests:", dump, re.MULTILINE), dump
    assert bench.vm.run(slots.format(device)).text.split() == (["0", "1"] if volume is DIRECT else ["0"])
    bench.vm.run(f"cryptsetup open {device} plain", data=volume.luks.passphrase + b"\n")
    shown = bench.vm.run("mount /dev/mapper/plain /mnt && cat /mnt/content; umount /mnt").output.decode()
    assert shown == CONTENT.format(volume.name)
    bench.close("plain")
    assert bench.keyquorum(f"unlock {device} --name never", code=2)["outcome"] == "failed"
    held = [bench.keyquorum(f"holder list-disk {d.device}-part1")["fragments"] for d in bench.fragments.values()]
    assert volume.luks.uuid not in {fragment["volume"] for disk in held for fragment in disk}
