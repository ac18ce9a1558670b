# SPDX-License-Identifier: Apache-2.0
"""The boot image of a machine that was enrolled, made on the host from its /etc and its disks.

By Debian's programs and our hook, as image builders do. The machine itself would need minutes for it under emulation;
one that does is in test_readme.py.
"""

import os
import shutil
from collections.abc import Mapping

from guests.chroot import Chroot
from guests.machine import Machine
from guests.root_tree import Tree, copy_tree
from guests.tools import run

_NAME = "initrd"
_SETTINGS = "etc.tar"
_OF_ETC = "crypttab fstab initramfs-tools keyquorum"


def take_settings(vm: Machine, entry: str) -> None:
    """Take what an image is made from, beside programs and disks."""
    with open(os.path.join(entry, _SETTINGS), "wb") as file:
        file.write(vm.run(f"tar -C /etc -c {_OF_ETC}").output)


def make(entry: str, tree: Tree, disks: Mapping[str, str]) -> None:
    """Make the image of a machine that is off. `disks` are the images of its disks by their paths in the machine."""
    root = os.path.join(entry, "root")
    copy_tree(tree, root)
    run(["tar", "-C", os.path.join(root, "etc"), "-xpf", os.path.join(entry, _SETTINGS)])
    Chroot(root, disks).update_initramfs()
    shutil.copyfile(Tree(root).initrd, os.path.join(entry, _NAME))
    shutil.rmtree(root)
