# SPDX-License-Identifier: Apache-2.0
"""Machines that are up in seconds: a boot is done once, frozen, and thawed for each test.

    with warm_machine(tree, str(tmp_path)) as vm:
        vm.plug(disk)
        vm.run("…")

For tests of a running system. What a test of the boot itself must see has happened long ago here. Time since boot goes
on from the freeze, the wall clock is set right, and the kernel's random numbers are not those of other thaws.
"""

import functools
import hashlib
import os

from guests import hardware, machine
from guests.cache import cached
from guests.disk_image import overlay, root_image
from guests.extents import sparse_copy
from guests.hardware import Disk, kernel_cmdline
from guests.machine import Machine
from guests.places import BUILD
from guests.root_tree import Tree
from guests.swtpm import TpmState
from guests.tools import run

_ROOT = "root"


def warm_machine(
    tree: Tree, directory: str, *, prepare: str = "", memory: int = 1024, ovmf: bool = False, build_dir: str = BUILD
) -> Machine:
    """A machine with this root and a TPM of its own, booted and idle, after the shell command `prepare` ran in it.

    What it writes goes to `directory`; several such machines may run from one frozen boot.
    """

    def booted(disk: Disk, tpm: TpmState, thaw: str | None = None) -> Machine:
        cmdline = kernel_cmdline(disk.device)
        start = functools.partial(Machine, kernel=tree.kernel, initrd=tree.initrd, cmdline=cmdline)
        return start(disks=[disk], tpm=tpm, memory=memory, ovmf=ovmf, thaw=thaw)

    def make(entry: str) -> None:
        disk = Disk(sparse_copy(root_image(tree, build_dir=build_dir), os.path.join(entry, "root.img")), _ROOT)
        with booted(disk, TpmState.create(os.path.join(entry, "tpm"))) as vm:
            vm.wait_boot()
            if prepare:
                vm.run(prepare, timeout=machine.BOOT_SECONDS)
            vm.freeze(os.path.join(entry, "frozen"))

    recipe = "\n".join([tree.identity, prepare, f"{memory} {ovmf}", _hardware()])
    entry = cached("warm", recipe, make, build_dir=build_dir)
    layer = overlay(os.path.join(entry, "root.img"), os.path.join(directory, "warm-root.qcow2"))
    tpm = TpmState(os.path.join(entry, "tpm")).clone(os.path.join(directory, "warm-tpm"))
    frozen = os.path.join(entry, "frozen")
    return booted(Disk(layer, _ROOT, format="qcow2"), tpm, frozen)


def _hardware() -> str:
    """What a frozen machine depends on beside its disk: QEMU's version and the hardware it is given."""
    digest = hashlib.sha256()
    for module in (hardware, machine):
        assert module.__file__
        with open(module.__file__, "rb") as file:
            digest.update(file.read())
    return f"{run(['qemu-system-x86_64', '--version']).decode().splitlines()[0]} {digest.hexdigest()}"
