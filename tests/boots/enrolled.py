# SPDX-License-Identifier: Apache-2.0
"""A machine whose root was enrolled for real: Debian, our package, `keyquorum enroll` on the running root, reboot.

It is made once per recipe (package, policy, hardware) and kept; each test works on throw-away overlays of it (`Scene`).
"""

import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from boots import boot_image, fragment_disks
from boots.fragment_disks import init_fragment_disks
from guests import disk_image, luks_image
from guests.cache import cached, file_digest
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
    at the enrolment and at each boot of a `Scene`; `more_disks` names further disks, blank before `prepare`.
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

    @property
    def disks(self) -> tuple[str, ...]:
        """The serial numbers of all disks."""
        return ("root", *FRAGMENT_DISKS, *self.more_disks)


# A guest under emulation may be slow without anybody in it being silent.
PATIENT = r"printf 'holder_timeout = 20\nunlock_timeout = 40\n' >>/etc/keyquorum/keyquorum.conf"
ANY_TWO = Recipe("any-two", TWO_OF_THREE, prepare=PATIENT)


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

    def make(entry: str) -> None:
        lay_disks(entry, tree, recipe)
        with before_enrolment(entry, recipe) as vm:
            enrol_root(vm, entry, recipe)
            vm.powerdown()
        make_boot_image(entry, tree, recipe)

    return Enrolled(cached(f"{recipe.suite}-enrolled-{recipe.name}", identity_of(tree, recipe), make), recipe)


def identity_of(tree: Tree, recipe: Recipe) -> str:
    """What belongs into the recipe of a machine that is made by this module."""
    made_by = (__file__, boot_image.__file__, fragment_disks.__file__)
    return "\n".join([tree.identity, str(recipe), *map(file_digest, made_by)])


@contextmanager
def before_enrolment(entry: str, recipe: Recipe, **changes: object) -> Iterator[Machine]:
    """The machine of a new entry, up, with its root opened by the passphrase; `changes` go to `Machine`."""
    with _machine(entry, recipe, changes) as vm:
        vm.wait_console(PROMPT)
        vm.type(recipe.luks.passphrase.decode() + "\n")
        vm.wait_boot()
        yield vm


def enrol_root(vm: Machine, entry: str, recipe: Recipe) -> None:
    """Enrol the running root, and take what a boot image is made from into the entry."""
    init_fragment_disks(vm, FRAGMENT_DISKS)
    vm.put("/root/policy.toml", recipe.policy.encode())
    vm.put("/root/passphrase", recipe.luks.passphrase, mode=0o600)
    if recipe.prepare:
        vm.run(recipe.prepare, timeout=ENROL_SECONDS)
    device = f"/dev/disk/by-uuid/{recipe.luks.uuid}"
    words = f"--policy /root/policy.toml --key-file /root/passphrase --yes --no-boot-image {recipe.options}"
    done = vm.run(f"keyquorum enroll {device} {words}", timeout=ENROL_SECONDS)
    with open(os.path.join(entry, "enroll.log"), "wb") as file:
        file.write(done.errors)
    boot_image.take_settings(vm, entry)


def make_boot_image(entry: str, tree: Tree, recipe: Recipe) -> None:
    """Make the boot image of a machine that was enrolled and is off."""
    images = {f"/dev/disk/by-id/virtio-{name}": os.path.join(entry, f"{name}.img") for name in recipe.disks}
    images[f"/dev/disk/by-uuid/{recipe.luks.uuid}"] = os.path.join(entry, "root.img")
    boot_image.make(entry, tree, images)


def lay_disks(entry: str, tree: Tree, recipe: Recipe) -> None:
    """Put the disks, the TPM, kernel and first boot image of a machine into a new entry."""
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


def _machine(entry: str, recipe: Recipe, changes: Mapping[str, object]) -> Machine:
    options: dict[str, object] = {
        "kernel": os.path.join(entry, "vmlinuz"),
        "initrd": os.path.join(entry, "initrd-before"),
        "cmdline": CMDLINE,
        "disks": [Disk(os.path.join(entry, f"{name}.img"), name) for name in recipe.disks],
        "tpm": TpmState(os.path.join(entry, "tpm")),
    }
    return Machine(**(options | dict(recipe.hardware) | dict(changes)))  # type: ignore[arg-type]  # keywords are Machine's own


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
