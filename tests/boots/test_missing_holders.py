# SPDX-License-Identifier: Apache-2.0
"""Boots with one holder gone: the other two open the volume by themselves (I3), and the one that is gone is named."""

import os

from boots import aftermath
from boots.aftermath import MISSING, UNAVAILABLE, VALID, ask_everyone, nothing_left, opened_by_itself
from boots.enrolled import NAME, Scene
from guests.hardware import Disk


def test_without_the_first_disk(scene: Scene) -> None:
    del scene.disks["frag-a"]
    with scene.machine() as vm:
        told = opened_by_itself(vm)
        assert told["disk-a"].verdict in MISSING
        assert (told["tpm"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        nothing_left(vm)


def test_without_the_second_disk_and_with_a_flat_clock_battery(scene: Scene) -> None:
    """A clock before the enrolment cannot judge expiry: fragments count, and each verdict says so (fragment.md §4)."""
    del scene.disks["frag-b"]
    with scene.machine(clock="2001-01-01T00:00:00") as vm:
        told = opened_by_itself(vm)
        assert told["disk-b"].verdict in MISSING
        for name in ("disk-a", "tpm"):
            assert told[name].verdict == VALID
            assert told[name].reason == "the clock is before the enrolment, so expiry was not judged"
            aftermath.wait_for_verdict(vm, name, VALID, told[name].reason)
        nothing_left(vm)


def test_without_the_tpm_and_with_disks_that_cannot_be_written(scene: Scene) -> None:
    scene.tpm = None
    for name in ("frag-a", "frag-b"):
        disk = scene.disks[name]
        scene.disks[name] = Disk(disk.path, name, format=disk.format, read_only=True)
    with scene.machine() as vm:
        told = opened_by_itself(vm)
        assert (told["disk-a"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        assert told["tpm"].verdict in MISSING
        vm.wait_console("keyquorum: warning: PCR 15 was not extended: .*$", from_start=True)
        assert vm.run("blockdev --getro /dev/disk/by-id/virtio-frag-a").text == "1"
        asked = ask_everyone(vm, scene.luks)
        assert asked["tpm"].verdict == UNAVAILABLE
        assert "/dev/tpmrm0" in asked["tpm"].reason
        assert os.path.basename(vm.run("findmnt -no SOURCE /").text) == NAME
        nothing_left(vm)
