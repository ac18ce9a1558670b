# SPDX-License-Identifier: Apache-2.0
"""A data volume and its fragment disks, plugged into a machine that is awake in seconds.

What the machine keeps under /etc/keyquorum is on a disk of its own as well: so another machine, woken up on the same
disks, is the same one after a power cut.
"""

import os
from collections.abc import Mapping

from boots.enrolled import FRAGMENT_DISKS, TWO_OF_THREE, package
from boots.fragment_disks import init_fragment_disks
from guests.disk_image import MEBIBYTE, empty_image, ext4_image
from guests.hardware import Disk
from guests.luks_image import TEST_VOLUME, format_luks
from guests.machine import Machine
from guests.root_tree import Tree, guest_tree, variant

VOLUME, ETC = "volume", "etc"
DISKS = (VOLUME, *FRAGMENT_DISKS, ETC)
DEVICE = f"/dev/disk/by-id/virtio-{VOLUME}"
ANCHOR = f"/volumes/{TEST_VOLUME.uuid}.json"
ENROL = f"keyquorum enroll {DEVICE} --policy /root/policy.toml --key-file /root/passphrase --yes"
ENROL_SECONDS = 180.0
ENROL_WITH_KEYSLOT = f"{ENROL} --with-keyslot"
STEPS = (  # what it tells while it works
    "fragment 2 of 3: tpm (tpm)",
    "fragment 1 of 3: disk-a (disk)",
    "fragment 3 of 3: disk-b (disk)",
    "adding the keyslot",
    "reading every fragment back",
    "writing the LUKS2 token",
    "reading the token back",
    "is enrolled; its passphrases keep working",
)


def tree() -> Tree:
    """A Debian root with our package, and nothing enrolled."""
    return variant(guest_tree("trixie"), "trixie-data", debs=[package()], initramfs=False)


def blank_disks(directory: str) -> dict[str, str]:
    """A volume, two disks for fragments and a small file system, by name."""
    paths = {name: os.path.join(directory, f"{name}.img") for name in DISKS}
    format_luks(empty_image(paths[VOLUME], 20 * MEBIBYTE), TEST_VOLUME)
    for name in FRAGMENT_DISKS:
        empty_image(paths[name], 8 * MEBIBYTE)
    nothing = os.path.join(directory, "nothing")
    os.mkdir(nothing)
    ext4_image(nothing, paths[ETC], size=8 * MEBIBYTE)
    return paths


def plug_in(vm: Machine, disks: Mapping[str, Disk], *, new: bool) -> None:
    """Give a machine that just woke up its disks; `new` ones get what they need for an enrolment."""
    for disk in disks.values():
        vm.plug(disk)
    vm.put("/root/policy.toml", TWO_OF_THREE.encode())
    vm.put("/root/passphrase", TEST_VOLUME.passphrase, mode=0o600)
    vm.run(["udevadm", "wait", "--timeout=40", *(disk.device for disk in disks.values())])
    fill = "cp -a /run/kept/. /etc/keyquorum/" if new else "true"
    mount = f"mount -o noatime {disks[ETC].device} /etc/keyquorum"
    vm.run(f"set -e; cp -a /etc/keyquorum /run/kept; {mount}; {fill}")
    if new:
        init_fragment_disks(vm, FRAGMENT_DISKS)
    vm.run(["udevadm", "wait", "--timeout=40", *(f"{disks[name].device}-part1" for name in FRAGMENT_DISKS)])
