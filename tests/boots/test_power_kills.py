# SPDX-License-Identifier: Apache-2.0
"""QEMU is killed at every step that an enrolment tells; another machine with the same disks goes on (I6)."""

import json
import re
from pathlib import Path

import pytest

from boots.enrolled import FRAGMENT_DISKS, OPENED, PROMPT, Scene
from boots.known_secrets import fragments_on
from boots.plugged_volume import DEVICE, ENROL_SECONDS, ENROL_WITH_KEYSLOT, STEPS, blank_disks, plug_in, tree
from guests.hardware import Disk
from guests.luks_image import TEST_VOLUME
from guests.machine import Machine
from guests.warm import warm_machine


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Disk]:
    """Disks without a cache: what the guest was told is written, is."""
    return {name: Disk(path, name, cache="writethrough") for name, path in blank_disks(str(tmp_path)).items()}


def test_the_power_goes_at_every_step(disks: dict[str, Disk], tmp_path: Path) -> None:
    enrolled = [False]
    for number, step in enumerate(STEPS):
        directory = tmp_path / str(number)
        directory.mkdir()
        with warm_machine(tree(), str(directory)) as vm:
            plug_in(vm, disks, new=not number)
            enrolled.append(_back_again(vm))
            vm.start(f"{ENROL_WITH_KEYSLOT} > /dev/console 2>&1", timeout=ENROL_SECONDS)
            vm.wait_console(re.escape(step), ENROL_SECONDS)
            vm.kill()
    (tmp_path / "last").mkdir()
    with warm_machine(tree(), str(tmp_path / "last")) as vm:
        plug_in(vm, disks, new=False)
        assert _back_again(vm), "the last cut came after the enrolment was done"
        vm.run(ENROL_WITH_KEYSLOT, timeout=ENROL_SECONDS)
        assert _opens(vm)
        slots = json.loads(vm.run(["cryptsetup", "luksDump", "--dump-json-metadata", DEVICE]).output)["keyslots"]
    sure = STEPS.index("reading every fragment back")
    assert not any(enrolled[: sure + 1]), "nothing is enrolled before the fragments were read back"
    assert [fragments_on(disks[name].path, TEST_VOLUME.uuid) for name in FRAGMENT_DISKS] == [1, 1]
    print(f"keyslots after {len(STEPS)} power cuts: {sorted(slots)}")


def _back_again(vm: Machine) -> bool:
    """What an administrator finds after the cut. An enrolled volume is opened, closed and unenrolled."""
    vm.run(f"cryptsetup open --test-passphrase --key-file /root/passphrase {DEVICE}")
    if vm.run(f"keyquorum check {DEVICE}", check=False).code:
        said = vm.run(f"keyquorum check {DEVICE}", check=False)
        assert (said.code, b"is not enrolled" in said.errors) == (2, True), said.errors.decode()
        return False
    assert _opens(vm)
    vm.run(f"keyquorum unenroll {DEVICE} --yes")
    return True


def _opens(vm: Machine) -> bool:
    vm.run(f"keyquorum unlock {DEVICE} --name again && cryptsetup close again")
    return True


def test_the_power_goes_while_the_root_is_enrolled(scene: Scene) -> None:
    """In the moment in which the token is written: the next boot opens by fragments or by passphrase."""
    for name in ("root", *FRAGMENT_DISKS):
        scene.disks[name] = Disk(scene.raw(name), name, cache="writethrough")
    device = f"/dev/disk/by-uuid/{scene.luks.uuid}"
    enrol = f"keyquorum enroll {device} --policy /root/policy.toml --key-file /root/passphrase --yes --no-boot-image"
    with scene.machine() as vm:
        vm.wait_console(OPENED)
        vm.wait_agent()
        vm.run(f"keyquorum unenroll {device} --yes --no-boot-image", timeout=ENROL_SECONDS)
        vm.start(f"{enrol} > /dev/console 2>&1", timeout=ENROL_SECONDS)
        vm.wait_console("writing the LUKS2 token", ENROL_SECONDS)
        vm.kill()
    with scene.machine() as vm:
        opened = vm.wait_console(f"{OPENED}|{PROMPT}")[0] == OPENED
        if not opened:
            vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_agent()
        vm.run(f"cryptsetup open --test-passphrase --key-file /root/passphrase {device}")
        if not opened:
            vm.run(enrol, timeout=ENROL_SECONDS)
        vm.run(f"keyquorum check {device}", timeout=ENROL_SECONDS)
