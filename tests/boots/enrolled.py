# SPDX-License-Identifier: Apache-2.0
"""A machine whose root was enrolled for real: Debian, our package, `keyquorum enroll` on the running root, reboot.

It is made once per recipe (package, policy, hardware) and kept; each test works on throw-away overlays of it (`Scene`).
"""

import glob
import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cache
from typing import Literal

from guests import disk_image, luks_image
from guests.cache import cached
from guests.extents import sparse_copy
from guests.guest_file import File
from guests.hardware import Disk, kernel_cmdline
from guests.luks_image import TEST_VOLUME, Luks
from guests.machine import Machine
from guests.places import REPOSITORY
from guests.root_tree import Tree, guest_tree, variant
from guests.swtpm import TpmState
from guests.tools import run

NAME = "cryptroot"
ROOT_SIZE = 2 << 30
FRAGMENT_DISK_SIZE = 8 << 20
FRAGMENT_DISKS = ("frag-a", "frag-b")
MORE_DISK_SIZE = 64 << 20
ENROL_SECONDS = 900.0
PROMPT = f"Please unlock disk {NAME}"
OPENED = f"keyquorum: {NAME} is open"
CMDLINE = kernel_cmdline(f"/dev/mapper/{NAME}")

# Any two of a disk, the TPM and another disk: what most tests start from.
TWO_OF_THREE = """\
version = 1
threshold = 2
of = ["disk-a", "tpm", "disk-b"]
[holder.disk-a]
kind = "disk"
device = "/dev/disk/by-id/virtio-frag-a-part1"
[holder.tpm]
kind = "tpm"
pcrs = [7]
[holder.disk-b]
kind = "disk"
device = "/dev/disk/by-id/virtio-frag-b-part1"
"""


@cache
def package() -> str:
    """Build the Debian package from this checkout; give its path."""
    run(["make", "--silent", "-C", REPOSITORY, "deb"], timeout=600)
    (path,) = glob.glob(os.path.join(REPOSITORY, "build", "keyquorum_*_amd64.deb"))
    return path


@cache
def product_tree(suite: str = "trixie", luks: Luks = TEST_VOLUME, extra: tuple[str, ...] = ()) -> Tree:
    """A Debian root with our package, whose own root file system is to be on the given LUKS2 volume."""
    files = {
        "/etc/crypttab": File(f"{NAME} UUID={luks.uuid} none luks,initramfs\n".encode()),
        "/etc/fstab": File(f"/dev/mapper/{NAME} / ext4 defaults 0 1\n".encode()),
        "/etc/initramfs-tools/conf.d/fast": File(b"COMPRESSLEVEL=1\n"),
    }
    return variant(guest_tree(suite, extra=extra), f"{suite}-keyquorum", debs=[package()], files=files)


@dataclass(frozen=True)
class Recipe:
    """How a machine is made and enrolled.

    `name` names it in the cache; `options` are further words for `keyquorum enroll`; `extra` are Debian packages;
    `prepare` is a shell command run in the guest before the enrolment; `hardware` are keywords of `Machine`, the same
    at the enrolment and at each boot of a `Scene`; `more_disks` names further disks, blank before `prepare`. `modules`
    is initramfs-tools' MODULES: "most" is Debian's default, "dep" (what this machine needs) is made in half the time.
    """

    name: str
    policy: str
    options: str = ""
    suite: str = "trixie"
    luks: Luks = TEST_VOLUME
    extra: tuple[str, ...] = ()
    prepare: str = ""
    hardware: tuple[tuple[str, object], ...] = ()
    more_disks: tuple[str, ...] = ()
    modules: Literal["most", "dep"] = "dep"

    @property
    def disks(self) -> tuple[str, ...]:
        """The serial numbers of all disks."""
        return ("root", *FRAGMENT_DISKS, *self.more_disks)


ANY_TWO = Recipe("any-two", TWO_OF_THREE, modules="most")


@dataclass(frozen=True)
class Enrolled:
    """The files of an enrolled machine, never written again. `recipe.luks` is what a test knows of its root volume."""

    directory: str
    recipe: Recipe

    def path(self, name: str) -> str:
        """One of: vmlinuz, initrd, initrd-before, enroll.log, or a disk: root.img, frag-a.img, frag-b.img and more."""
        return os.path.join(self.directory, name)

    @property
    def tpm(self) -> TpmState:
        """The state of the TPM that holds a fragment."""
        return TpmState(self.path("tpm"))


def enrolled_root(recipe: Recipe = ANY_TWO) -> Enrolled:
    """Enrol a root volume in its own running system, or find the machine where that was done before."""
    tree = product_tree(recipe.suite, recipe.luks, recipe.extra)
    with open(__file__, "rb") as source:
        described = f"{tree.identity}\n{recipe}\n{hashlib.sha256(source.read()).hexdigest()}"

    def make(entry: str) -> None:
        _lay_disks(entry, tree, recipe)
        with _machine(entry, recipe) as vm:
            vm.wait_console(PROMPT)
            vm.type(recipe.luks.passphrase.decode() + "\n")
            vm.wait_boot()
            _enrol(vm, entry, recipe)
            vm.powerdown()

    return Enrolled(cached(f"{recipe.suite}-enrolled-{recipe.name}", described, make), recipe)


def _enrol(vm: Machine, entry: str, recipe: Recipe) -> None:
    for disk in FRAGMENT_DISKS:
        vm.run(f"keyquorum holder init-disk /dev/disk/by-id/virtio-{disk} --yes")
    vm.put("/etc/initramfs-tools/conf.d/modules", f"MODULES={recipe.modules}\n".encode())
    vm.put("/root/policy.toml", recipe.policy.encode())
    vm.put("/root/passphrase", recipe.luks.passphrase, mode=0o600)
    if recipe.prepare:
        vm.run(recipe.prepare, timeout=ENROL_SECONDS)
    device = f"/dev/disk/by-uuid/{recipe.luks.uuid}"
    words = f"--policy /root/policy.toml --key-file /root/passphrase --yes {recipe.options}"
    done = vm.run(f"keyquorum enroll {device} {words}", timeout=ENROL_SECONDS)
    with open(os.path.join(entry, "enroll.log"), "wb") as file:
        file.write(done.errors)
    initrd = vm.run("echo /boot/initrd.img-*").text.strip()
    with open(os.path.join(entry, "initrd"), "wb") as file:
        file.write(vm.get(initrd, timeout=300))


def _lay_disks(entry: str, tree: Tree, recipe: Recipe) -> None:
    plain = os.path.join(entry, "plain.img")
    disk_image.ext4_image(tree.path, plain, size=ROOT_SIZE)
    luks_image.luks_image(plain, os.path.join(entry, "root.img"), recipe.luks)
    os.unlink(plain)
    for disk in recipe.disks[1:]:
        size = FRAGMENT_DISK_SIZE if disk in FRAGMENT_DISKS else MORE_DISK_SIZE
        disk_image.empty_image(os.path.join(entry, f"{disk}.img"), size)
    TpmState.create(os.path.join(entry, "tpm"))
    shutil.copyfile(tree.kernel, os.path.join(entry, "vmlinuz"))
    shutil.copyfile(tree.initrd, os.path.join(entry, "initrd-before"))


def _machine(entry: str, recipe: Recipe) -> Machine:
    options: dict[str, object] = {
        "kernel": os.path.join(entry, "vmlinuz"),
        "initrd": os.path.join(entry, "initrd-before"),
        "cmdline": CMDLINE,
        "disks": [Disk(os.path.join(entry, f"{name}.img"), name) for name in recipe.disks],
        "tpm": TpmState(os.path.join(entry, "tpm")),
    }
    return Machine(**(options | dict(recipe.hardware)))  # type: ignore[arg-type]  # keywords are Machine's own


class Scene:
    """Throw-away copies of an enrolled machine's disks and TPM. Change them, then boot."""

    def __init__(self, enrolled: Enrolled, directory: str) -> None:
        self.enrolled, self.directory = enrolled, directory
        self.luks = enrolled.recipe.luks
        self.disks = {name: self._overlay(name) for name in enrolled.recipe.disks}
        self.tpm: TpmState | None = enrolled.tpm.clone(os.path.join(directory, "tpm"))
        self.cmdline = CMDLINE

    def _overlay(self, name: str) -> Disk:
        path = disk_image.overlay(self.enrolled.path(f"{name}.img"), os.path.join(self.directory, f"{name}.qcow2"))
        return Disk(path, name, format="qcow2")

    def raw(self, name: str) -> str:
        """Swap a disk's overlay for a raw copy that the test may read and write; give its path."""
        path = os.path.join(self.directory, f"{name}.raw")
        sparse_copy(self.enrolled.path(f"{name}.img"), path)
        self.disks[name] = Disk(path, name)
        return path

    def machine(self, **changes: object) -> Machine:
        """The machine as it stands; `changes` go to `Machine`."""
        options: dict[str, object] = {
            "kernel": self.enrolled.path("vmlinuz"),
            "initrd": self.enrolled.path("initrd"),
            "cmdline": self.cmdline,
            "disks": list(self.disks.values()),
            "tpm": self.tpm,
        }
        hardware = dict(self.enrolled.recipe.hardware)
        return Machine(**(options | hardware | changes))  # type: ignore[arg-type]  # keywords are Machine's own
