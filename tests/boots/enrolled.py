# SPDX-License-Identifier: Apache-2.0
"""A machine whose root was enrolled for real: Debian, our package, `keyquorum enroll` on the running root, reboot.

It is made once per recipe (package, policy) and kept; each test works on throw-away overlays of it (`Scene`).
"""

import glob
import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cache

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
    """A Debian root with our package, whose own root file system will be on the given LUKS2 volume."""
    files = {
        "/etc/crypttab": File(f"{NAME} UUID={luks.uuid} none luks,initramfs\n".encode()),
        "/etc/fstab": File(f"/dev/mapper/{NAME} / ext4 defaults 0 1\n".encode()),
        "/etc/initramfs-tools/conf.d/fast": File(b"COMPRESSLEVEL=1\n"),
    }
    return variant(guest_tree(suite, extra=extra), f"{suite}-keyquorum", debs=[package()], files=files)


@dataclass(frozen=True)
class Enrolled:
    """The files of an enrolled machine, never written again. `luks` is what the test knows of its root volume."""

    directory: str
    luks: Luks

    def path(self, name: str) -> str:
        """One of: root.img, frag-a.img, frag-b.img, vmlinuz, initrd, initrd-before, enroll.log."""
        return os.path.join(self.directory, name)

    @property
    def tpm(self) -> TpmState:
        """The state of the TPM that holds a fragment."""
        return TpmState(self.path("tpm"))


def enrolled_root(
    policy: str = TWO_OF_THREE, options: str = "", *, suite: str = "trixie", luks: Luks = TEST_VOLUME
) -> Enrolled:
    """Enrol a root volume in its own running system; `options` are further words for `keyquorum enroll`."""
    tree = product_tree(suite, luks)
    with open(__file__, "rb") as source:
        recipe = f"{tree.path}\n{policy}\n{options}\n{luks}\n{hashlib.sha256(source.read()).hexdigest()}"

    def make(entry: str) -> None:
        _lay_disks(entry, tree, luks)
        with _machine(entry, "initrd-before") as vm:
            vm.wait_console(PROMPT)
            vm.type(luks.passphrase.decode() + "\n")
            vm.wait_boot()
            for disk in ("frag-a", "frag-b"):
                vm.run(f"keyquorum holder init-disk /dev/disk/by-id/virtio-{disk} --yes")
            vm.put("/root/policy.toml", policy.encode())
            vm.put("/root/passphrase", luks.passphrase, mode=0o600)
            device = f"/dev/disk/by-uuid/{luks.uuid}"
            enrol = f"keyquorum enroll {device} --policy /root/policy.toml --key-file /root/passphrase --yes {options}"
            done = vm.run(enrol, timeout=ENROL_SECONDS)
            with open(os.path.join(entry, "enroll.log"), "wb") as file:
                file.write(done.errors)
            initrd = vm.run("echo /boot/initrd.img-*").text.strip()
            with open(os.path.join(entry, "initrd"), "wb") as file:
                file.write(vm.get(initrd, timeout=300))
            vm.powerdown()

    return Enrolled(cached(f"{suite}-enrolled", recipe, make), luks)


def _lay_disks(entry: str, tree: Tree, luks: Luks) -> None:
    plain = os.path.join(entry, "plain.img")
    disk_image.ext4_image(tree.path, plain, size=ROOT_SIZE)
    luks_image.luks_image(plain, os.path.join(entry, "root.img"), luks)
    os.unlink(plain)
    for disk in ("frag-a", "frag-b"):
        disk_image.empty_image(os.path.join(entry, f"{disk}.img"), FRAGMENT_DISK_SIZE)
    TpmState.create(os.path.join(entry, "tpm"))
    shutil.copyfile(tree.kernel, os.path.join(entry, "vmlinuz"))
    shutil.copyfile(tree.initrd, os.path.join(entry, "initrd-before"))


def _machine(entry: str, initrd: str) -> Machine:
    disks = [Disk(os.path.join(entry, f"{name}.img"), name) for name in ("root", "frag-a", "frag-b")]
    tpm = TpmState(os.path.join(entry, "tpm"))
    kernel, image = os.path.join(entry, "vmlinuz"), os.path.join(entry, initrd)
    return Machine(kernel=kernel, initrd=image, cmdline=CMDLINE, disks=disks, tpm=tpm)


class Scene:
    """Throw-away copies of an enrolled machine's disks and TPM. Change them, then boot."""

    def __init__(self, enrolled: Enrolled, directory: str) -> None:
        self.enrolled, self.directory = enrolled, directory
        self.luks = enrolled.luks
        self.disks = {name: self._overlay(name) for name in ("root", "frag-a", "frag-b")}
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
        return Machine(**(options | changes))  # type: ignore[arg-type]  # a test's keywords are Machine's own
