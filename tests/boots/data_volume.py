# SPDX-License-Identifier: Apache-2.0
"""A machine with an ordinary root and enrolled data volumes: crypttab, fstab, fragment disks, a TPM and a token.

It is made once per package and suite and kept; each test works on throw-away overlays of its disks (`DataScene`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from boots import fragment_disks
from boots.enrolled import package
from boots.fragment_disks import init_fragment_disks
from guests import disk_image, luks_image
from guests.cache import cached, file_digest
from guests.disk_image import MEBIBYTE
from guests.hardware import Disk, kernel_cmdline
from guests.luks_image import Luks
from guests.machine import Machine
from guests.root_tree import Tree, guest_tree, variant
from guests.swtpm import TpmState

FRAGMENT_DISKS = ("frag-a", "frag-b", "frag-c")
USUAL_DISKS = FRAGMENT_DISKS[:2]  # frag-c is in a drawer, so that its volume needs the token
KEY_SOCKET = "/run/keyquorum/key.sock"
CREDENTIAL = "/etc/credstore/keyquorum.token"
PIN, SO_PIN = "731942", "87654321"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
ENROL_SECONDS = 300.0
# On a busy host udev needs longer to find the volumes than the 90 s after which systemd would give them up.
_PATIENCE = ("systemd.default_device_timeout_sec=600", "systemd.default_timeout_start_sec=600")
PROMPT = r"passphrase for disk (?:\S+ \()?(\w+)\)?(?: on |:)"
CONTENT = "in the volume {}\n"
_SETTINGS = b"holder_timeout = 60\nunlock_timeout = 120\n"  # the same: nobody here is silent, but some are slow

_DISK = '[holder.{0}]\nkind = "disk"\ndevice = "/dev/disk/by-id/virtio-frag-{1}-part1"\n'
_TPM = '[holder.tpm]\nkind = "tpm"\npcrs = [7]\n'
_TOKEN = '[holder.token]\nkind = "pkcs11"\nuri = "pkcs11:token=vault;object=keyquorum"\n'
TWO_OF_THREE = 'version = 1\nthreshold = 2\nof = ["disk-a", "tpm", "disk-b"]\n' + (
    _DISK.format("disk-a", "a") + _TPM + _DISK.format("disk-b", "b")
)
TPM_AND_DISK = 'version = 1\nthreshold = 2\nof = ["tpm", "disk-b"]\n' + _TPM + _DISK.format("disk-b", "b")
WITH_TOKEN = 'version = 1\nthreshold = 2\nof = ["disk-c", "tpm", "token"]\n' + (
    _DISK.format("disk-c", "c") + _TPM + _TOKEN
)

_MAKE_TOKEN = f"""\
softhsm2-util --init-token --free --label vault --pin {PIN} --so-pin {SO_PIN}
pkcs11-tool --module {SOFTHSM} --login --pin {PIN} --keypairgen --key-type EC:prime256v1 \\
    --label keyquorum --id 01 --sensitive --usage-derive
"""


def luks_for(name: str) -> Luks:
    """A volume of its own key, passphrase and UUID, the same for the same name."""
    key = hashlib.sha512(f"keyquorum data volume {name}".encode()).digest()
    digits = key.hex()
    uuid = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
    return Luks(key, f"the passphrase of {name}".encode(), uuid)


@dataclass(frozen=True)
class Volume:
    """A data volume: how it is enrolled and what /etc/crypttab and /etc/fstab say of it."""

    name: str
    policy: str
    options: str = "luks,x-keyquorum"
    key_field: str = "none"
    mount: str = "defaults"  # fstab's options; empty for a volume that fstab does not know
    enroll: str = ""

    @property
    def luks(self) -> Luks:
        """What a test knows of the volume."""
        return luks_for(self.name)

    @property
    def where(self) -> str:
        """Its mount point."""
        return f"/srv/{self.name}"

    def crypttab(self) -> str:
        """Its line of /etc/crypttab."""
        return f"{self.name}\tUUID={self.luks.uuid}\t{self.key_field}\t{self.options}\n"

    def fstab(self) -> str:
        """Its line of /etc/fstab."""
        return f"/dev/mapper/{self.name} {self.where} ext4 {self.mount} 0 2\n" if self.mount else ""


VOLUMES = {
    volume.name: volume
    for volume in (
        Volume("data", TWO_OF_THREE, options="luks,x-keyquorum,discard"),
        Volume("spare", TPM_AND_DISK, options="luks,x-keyquorum,x-keyquorum.wait=1"),
        Volume("socket", TPM_AND_DISK, key_field=KEY_SOCKET, options="luks", enroll="--with-keyslot"),
        Volume("token", WITH_TOKEN, options="luks,x-keyquorum,x-keyquorum.wait=1,nofail", mount="nofail"),
        Volume("idle", TWO_OF_THREE, options="luks,x-keyquorum,noauto", mount=""),
    )
}
# systemd 252 does not know ImportCredential=, so on Debian 12 the token's PIN would need a drop-in.
VOLUMES_OF = {"trixie": tuple(VOLUMES), "bookworm": ("data", "spare", "socket", "idle")}


def data_tree(suite: str = "trixie") -> Tree:
    """A Debian root with our package, and nothing enrolled."""
    return variant(guest_tree(suite), f"{suite}-data", debs=[package()], initramfs=False)


def volume_image(path: str, luks: Luks, name: str) -> str:
    """An encrypted ext4 file system with one file in it, `content`."""
    directory = f"{path}.tree"
    os.mkdir(directory)
    with open(os.path.join(directory, "content"), "w", encoding="utf-8") as file:
        file.write(CONTENT.format(name))
    plain = disk_image.ext4_image(directory, f"{path}.plain", size=16 * MEBIBYTE, label=name)
    luks_image.luks_image(plain, path, luks)
    shutil.rmtree(directory)
    os.unlink(plain)
    return path


class DataScene:
    """Throw-away copies of a machine with enrolled data volumes. Change `fragment_disks` or `cmdline`, then boot."""

    def __init__(self, directory: str, suite: str = "trixie") -> None:
        self.directory, self.suite = directory, suite
        self._golden = _enrolled(suite)
        self._tree = data_tree(suite)
        self.tpm = TpmState(os.path.join(self._golden, "tpm")).clone(os.path.join(directory, "tpm"))
        self.fragment_disks: Iterable[str] = USUAL_DISKS
        self.cmdline = ""

    def disk(self, name: str) -> Disk:
        """A throw-away copy of one disk, to plug in; call it once for each."""
        base = os.path.join(self._golden, f"{name}.img")
        return Disk(disk_image.overlay(base, os.path.join(self.directory, f"{name}.qcow2")), name, format="qcow2")

    def machine(self) -> Machine:
        """The machine as it stands."""
        names = ("root", *VOLUMES_OF[self.suite], *self.fragment_disks)
        return _machine(self._tree, [self.disk(name) for name in names], self.tpm, self.cmdline)


def _machine(tree: Tree, disks: list[Disk], tpm: TpmState, cmdline: str = "") -> Machine:
    line = kernel_cmdline("/dev/disk/by-id/virtio-root", *_PATIENCE, *cmdline.split())
    return Machine(kernel=tree.kernel, initrd=tree.initrd, cmdline=line, disks=disks, tpm=tpm)


def _enrolled(suite: str) -> str:
    """The directory with a machine's disks and TPM state after everything was enrolled in it."""
    tree, volumes = data_tree(suite), [VOLUMES[name] for name in VOLUMES_OF[suite]]
    recipe = "\n".join([tree.identity, str(volumes), *map(file_digest, (__file__, fragment_disks.__file__))])

    def make(entry: str) -> None:
        def path(name: str) -> str:
            return os.path.join(entry, f"{name}.img")

        disk_image.ext4_image(tree.path, path("root"))
        for volume in volumes:
            volume_image(path(volume.name), volume.luks, volume.name)
        for name in FRAGMENT_DISKS:
            disk_image.empty_image(path(name), 8 * MEBIBYTE)
        names = ("root", *(volume.name for volume in volumes), *FRAGMENT_DISKS)
        tpm = TpmState.create(os.path.join(entry, "tpm"))
        with _machine(tree, [Disk(path(name), name) for name in names], tpm) as vm:
            vm.wait_boot()
            _enrol(vm, volumes)
            vm.powerdown()

    return cached(f"{suite}-data-enrolled", recipe, make)


def _enrol(vm: Machine, volumes: list[Volume]) -> None:
    vm.put("/etc/keyquorum/keyquorum.conf", _SETTINGS)
    init_fragment_disks(vm, FRAGMENT_DISKS)
    if any(volume.policy == WITH_TOKEN for volume in volumes):
        make_token(vm)
        vm.put(CREDENTIAL, PIN.encode(), mode=0o600)
    for volume in volumes:
        enrol(vm, volume)
    for path, lines in (
        ("/etc/crypttab", [volume.crypttab() for volume in volumes]),
        ("/etc/fstab", [volume.fstab() for volume in volumes]),
    ):
        vm.put(path, "".join(lines).encode())
    vm.run(["mkdir", "-p", *(volume.where for volume in volumes)])


def make_token(vm: Machine) -> None:
    """Make a SoftHSM2 token with the key that `WITH_TOKEN` names."""
    vm.run(f"set -e\n{_MAKE_TOKEN}")


def enrol(vm: Machine, volume: Volume) -> dict[str, Any]:
    """Enrol a volume with its passphrase as an administrator's script would; give what the command printed."""
    vm.put("/root/policy.toml", volume.policy.encode())
    vm.put("/root/passphrase", volume.luks.passphrase, mode=0o600)
    vm.put("/root/pin", PIN.encode(), mode=0o600)
    pin = "--pin-fd token=3 3</root/pin" if volume.policy == WITH_TOKEN else ""
    words = "--policy /root/policy.toml --key-file /root/passphrase --yes --no-boot-image --json"
    command = f"keyquorum enroll UUID={volume.luks.uuid} {words} {volume.enroll} {pin}"
    printed: dict[str, Any] = json.loads(vm.run(command, timeout=ENROL_SECONDS).output)
    return printed


def journal(vm: Machine, *matches: str) -> list[dict[str, Any]]:
    """Entries of this boot's journal that fit the matches, such as KEYQUORUM_NAME=data."""
    lines = vm.run(["journalctl", "-b", "--no-pager", "-o", "json", *matches]).text.splitlines()
    return [json.loads(line) for line in lines]
