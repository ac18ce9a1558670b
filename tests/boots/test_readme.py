# SPDX-License-Identifier: Apache-2.0
"""Following only the README: a clean Debian 13 gets the package, its root is enrolled, it reboots; then all the way back.

The commands are the README's, typed at the machine's terminal. The host plays the boot loader: it takes kernel and
initramfs from the machine's /boot before each start.
"""

import json
import os
from pathlib import Path

from boots.clean_machine import CMDLINE, NAME, clean_disks, clean_tree
from boots.enrolled import package
from boots.person import Person, fenced_commands
from guests.hardware import Disk
from guests.luks_image import TEST_VOLUME
from guests.machine import Machine
from guests.places import REPOSITORY
from guests.swtpm import TpmState

PASSPHRASE = TEST_VOLUME.passphrase.decode()
# What the installer writes for "targeted: only include drivers needed for this system". Under emulation an initramfs
# with all drivers takes minutes, and two are made here; those of the other tests have them all.
TARGETED = b"MODULES=dep\n"
PROMPT = f"Please unlock disk {NAME}"


class Hardware:
    """The machine between two starts."""

    def __init__(self, directory: Path) -> None:
        tree = clean_tree()
        self.kernel, self.initrd, self._next = tree.kernel, tree.initrd, str(directory / "initrd")
        self.disks: list[Disk] = clean_disks(tree, str(directory))
        self.tpm = TpmState.create(str(directory / "tpm"))

    def start(self) -> Machine:
        return Machine(kernel=self.kernel, initrd=self.initrd, cmdline=CMDLINE, disks=self.disks, tpm=self.tpm)

    def take_boot_files(self, vm: Machine) -> None:
        """As a boot loader will find them."""
        path = vm.run("echo /boot/initrd.img-*").text.strip()
        Path(self._next).write_bytes(vm.get(path, timeout=300))
        self.initrd = self._next


def follow(vm: Machine, hardware: Hardware, blocks: list[str]) -> str:
    """Type the commands of a section, whose last one is `reboot`; returns what the terminal showed."""
    commands = "".join(f"{block}\n" for block in blocks)
    assert commands.endswith("reboot\n")
    person = Person(vm, PASSPHRASE)
    vm.wait_boot()  # systemd tells on this terminal what it starts
    person.log_in()
    shown = person.types(commands.removesuffix("reboot\n"))
    hardware.take_boot_files(vm)
    person.last_words("reboot")
    return shown


def test_following_only_the_readme(tmp_path: Path) -> None:
    readme = Path(REPOSITORY, "README.md").read_text(encoding="utf-8")
    hardware = Hardware(tmp_path)

    with hardware.start() as vm:
        vm.wait_console(PROMPT)
        vm.type(f"{PASSPHRASE}\n")
        assert vm.run("dpkg-query -W libsodium23 python3-systemd", check=False).code == 1, "this Debian is not clean"
        vm.put("/etc/initramfs-tools/conf.d/guests", TARGETED)
        deb = package()
        vm.put(f"/root/{os.path.basename(deb)}", Path(deb).read_bytes(), timeout=300)
        shown = follow(vm, hardware, fenced_commands(readme, "Quick start on a machine"))
    assert "opens with any 2 of" in shown
    assert "would open: 3 of 3 fragments are valid" in shown

    with hardware.start() as vm:
        vm.wait_console(f"keyquorum: {NAME} is open, from [23] of 3 fragments")
        assert vm.wait_boot() == "running"
        assert PROMPT not in vm.console_text()
        (volume,) = json.loads(vm.run("keyquorum status --json").output)["volumes"]
        assert volume["last_unlock"]["outcome"] == "opened"
        follow(vm, hardware, fenced_commands(readme, "The way back"))

    with hardware.start() as vm:
        vm.wait_console(PROMPT)
        vm.type(f"{PASSPHRASE}\n")
        assert vm.wait_boot() == "running"
        assert "keyquorum" not in vm.console_text()
        assert "keyquorum" not in vm.run("cryptsetup luksDump /dev/vda2").text
        left = vm.run("find /etc /usr /var/lib -path /var/lib/dpkg -prune -o -name '*keyquorum*' -print").text
        assert left == ""
