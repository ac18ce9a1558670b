# SPDX-License-Identifier: Apache-2.0
"""A Debian 13 as its installer leaves it: root on LUKS2 with a passphrase, an archive to install from, nothing of ours.

What the package depends on is not there. It is in an archive on the machine's own disk, so that apt does its work
without a network.
"""

import os

from guests import disk_image, luks_image
from guests.cache import cached
from guests.disk_image import LUKS, Partition
from guests.guest_file import File
from guests.hardware import Disk, kernel_cmdline
from guests.luks_image import TEST_VOLUME
from guests.root_tree import Tree, guest_tree, variant
from guests.tools import run

NAME = "vda2_crypt"  # as the installer names it
CMDLINE = kernel_cmdline(f"/dev/mapper/{NAME}")
ARCHIVE = "/var/local/archive"
ROOT_SIZE = 2 << 30
SPARE_DISK_SIZE = 8 << 20
SPARE_DISKS = ("spare-1", "spare-2")

# What test machines have for other tests and an installed Debian need not have.
_NOT_HERE = (
    "fdisk gdisk less libsodium23 opensc python3-pyroute2 python3-systemd python3-tpm2-pytss softhsm2 strace tpm-udev "
    "tpm2-tools"
)
# What apt has to find: dependencies of the package, and theirs.
_IN_ARCHIVE = "fdisk libfdisk1 libsodium23 python3-psutil python3-pyroute2 python3-systemd"


def _archive(base: Tree) -> dict[str, File]:
    """Packages, downloaded once for each base, with the index that makes an archive of them."""

    def make(entry: str) -> None:
        fetch = f"cd {entry} && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq download {_IN_ARCHIVE}"
        argv = ["mmdebstrap", "--variant=custom", "--format=null", f"--customize-hook={fetch}", "trixie", "-"]
        run(argv, timeout=300)
        index = run(["sh", "-c", f"cd {entry} && dpkg-scanpackages --multiversion ."])
        with open(os.path.join(entry, "Packages"), "wb") as file:
            file.write(index)

    entry = cached("archive", f"{base.identity} {_IN_ARCHIVE}", make)
    files = {}
    for name in sorted(os.listdir(entry)):
        if name == "Packages" or name.endswith(".deb"):
            with open(os.path.join(entry, name), "rb") as file:
                files[f"{ARCHIVE}/{name}"] = File(file.read())
    return files


def clean_tree() -> Tree:
    """The root file system, with an initramfs that asks for the passphrase."""
    base = guest_tree("trixie")
    files = {
        **_archive(base),
        "/etc/apt/sources.list": File(f"deb [trusted=yes] file:{ARCHIVE} ./\n".encode()),
        "/etc/crypttab": File(f"{NAME} UUID={TEST_VOLUME.uuid} none luks,initramfs\n".encode()),
        "/etc/fstab": File(f"/dev/mapper/{NAME} / ext4 defaults 0 1\n".encode()),
        "/etc/initramfs-tools/conf.d/fast": File(b"COMPRESSLEVEL=1\n"),
    }
    commands = [f"apt-get purge --yes --autoremove {_NOT_HERE}", "apt-get update"]
    return variant(base, "trixie-clean", files=files, commands=commands)


def clean_disks(tree: Tree, directory: str) -> list[Disk]:
    """The disk with the root in its second partition, and two spare disks: vda, vdb and vdc."""

    def make(entry: str) -> None:
        plain = disk_image.ext4_image(tree.path, os.path.join(entry, "plain.img"), size=ROOT_SIZE)
        volume = luks_image.luks_image(plain, os.path.join(entry, "volume.img"), TEST_VOLUME)
        os.unlink(plain)
        parts = [Partition("boot", size=1 << 20), Partition("root", image=volume, type_guid=LUKS)]
        disk_image.gpt_image(os.path.join(entry, "root.img"), parts)
        os.unlink(volume)

    image = os.path.join(cached("trixie-clean-image", tree.identity, make), "root.img")
    layer = disk_image.overlay(image, os.path.join(directory, "root.qcow2"))
    spare = [disk_image.empty_image(os.path.join(directory, name), SPARE_DISK_SIZE) for name in SPARE_DISKS]
    return [Disk(layer, "root", format="qcow2"), *map(Disk, spare, SPARE_DISKS)]
