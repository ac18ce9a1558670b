# SPDX-License-Identifier: Apache-2.0
"""Fragment disks that were changed, rotted or swapped, among good holders: named in words, and the others open."""

import os

from boots import fragment_image
from boots.aftermath import (
    NOT_NEEDED,
    REFUSED,
    TAMPERED,
    UNAVAILABLE,
    VALID,
    Told,
    ask_everyone,
    nothing_left,
    opened_by_itself,
    wait_for_verdict,
)
from boots.enrolled import ENROL_SECONDS, Scene
from guests.extents import sparse_copy
from guests.hardware import Disk
from guests.machine import Machine
from keyquorum.linux.fragment_disk import show_id
from keyquorum.model.fragment_disk import Entry

OTHER_VOLUME = "0e5f1c5a-7d0f-4c1b-9a55-2f6f3c1d8e42"
OTHER_DISK, EMPTY_DISK = bytes(range(16)), bytes(range(16, 32))
OTHER_SET = "holds only fragments of another set of this volume"


def test_a_changed_envelope_with_right_checksums(scene: Scene) -> None:
    fragment_image.rewrite(scene.raw("frag-a"), fragment_image.flip_signed_byte)
    with scene.machine() as vm:
        told = opened_by_itself(vm)
        line = wait_for_verdict(vm, "disk-a", TAMPERED)
        assert "fragment disk-a: signatures: the signature of owner" in line
        assert told["disk-a"].verdict == TAMPERED
        assert told["disk-a"].reason in line
        assert (told["tpm"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        nothing_left(vm)


def test_disks_in_the_place_of_another(scene: Scene) -> None:
    """A foreign and an empty disk at boot; what was made of the right one, in the running system; an old set at boot."""
    good = scene.raw("frag-b")
    (own,) = fragment_image.entries(good)
    known = fragment_image.disk_id(good)
    foreign = own.with_(volume=OTHER_VOLUME)
    scene.disks["foreign"] = _disk(scene, "foreign", OTHER_DISK, foreign)
    scene.disks["empty"] = _disk(scene, "empty", EMPTY_DISK)
    del scene.disks["frag-b"]
    with scene.machine() as vm:
        told = opened_by_itself(vm)
        assert (told["disk-a"].verdict, told["tpm"].verdict) == (VALID, VALID)
        assert told["disk-b"].verdict in {UNAVAILABLE, NOT_NEEDED}
        absent = ask_everyone(vm, scene.luks)["disk-b"]
        assert absent.verdict == UNAVAILABLE
        assert absent.reason.startswith(f"no disk with id {show_id(known)} is attached, but ")
        assert show_id(OTHER_DISK) in absent.reason
        assert show_id(EMPTY_DISK) in absent.reason
        nothing_left(vm)

        cloned = _answer(vm, scene, _disk(scene, "cloned", known, foreign))
        assert cloned.verdict == REFUSED
        assert cloned.reason.endswith("holds 1 fragments, none of this volume")
        emptied = _answer(vm, scene, _disk(scene, "emptied", known))
        assert emptied.verdict == REFUSED
        assert emptied.reason.endswith("holds 0 fragments, none of this volume")
        assert _answer(vm, scene, _copy(scene, good, "good")) == Told(VALID, "", "")
        _enrol_again(vm, scene, _copy(scene, good, "again"))
        vm.powerdown()
    _boot_with_the_disk_of_the_old_set(scene, good)


def _boot_with_the_disk_of_the_old_set(scene: Scene, old: str) -> None:
    del scene.disks["foreign"], scene.disks["empty"]
    scene.disks["frag-b"] = Disk(old, "frag-b")
    with scene.machine() as vm:
        told = opened_by_itself(vm)
        assert (told["disk-a"].verdict, told["tpm"].verdict) == (VALID, VALID)
        assert told["disk-b"].verdict in {TAMPERED, NOT_NEEDED}
        stale = ask_everyone(vm, scene.luks)["disk-b"]
        assert stale.verdict == TAMPERED
        assert stale.reason.endswith(OTHER_SET)
        nothing_left(vm)


def _disk(scene: Scene, name: str, disk: bytes, *fragments: Entry) -> Disk:
    return Disk(fragment_image.make(os.path.join(scene.directory, f"{name}.img"), disk, *fragments), name)


def _copy(scene: Scene, image: str, name: str) -> Disk:
    return Disk(sparse_copy(image, os.path.join(scene.directory, f"{name}.img")), name)


def _answer(vm: Machine, scene: Scene, disk: Disk) -> Told:
    """What `keyquorum check` says of disk-b while this disk is attached."""
    _plug(vm, disk)
    told = ask_everyone(vm, scene.luks)
    assert (told["disk-a"].verdict, told["tpm"].verdict) == (VALID, VALID)
    vm.unplug(disk.serial)
    return told["disk-b"]


def _enrol_again(vm: Machine, scene: Scene, disk: Disk) -> None:
    """Make a new set of the same volume for the same holders; the boot image knows the owner, and that is enough."""
    _plug(vm, disk)
    vm.run(f"sed -i s/virtio-frag-b/virtio-{disk.serial}/ /root/policy.toml")
    device = f"/dev/disk/by-uuid/{scene.luks.uuid}"
    vm.run(f"keyquorum unenroll {device} --yes --no-boot-image", timeout=ENROL_SECONDS)
    files = "--policy /root/policy.toml --key-file /root/passphrase"
    vm.run(f"keyquorum enroll {device} {files} --yes --no-boot-image", timeout=ENROL_SECONDS)


def _plug(vm: Machine, disk: Disk) -> None:
    vm.plug(disk)
    vm.run(f"udevadm wait --settle --timeout=30 {disk.device}-part1")
