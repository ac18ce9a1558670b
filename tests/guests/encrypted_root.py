# SPDX-License-Identifier: Apache-2.0
"""A root file system on LUKS2, opened by stock Debian: the control of every comparison, and a start for variants."""

import os

from guests.cache import cached
from guests.disk_image import ext4_image
from guests.guest_file import File
from guests.luks_image import TEST_VOLUME, Luks, luks_image
from guests.places import BUILD
from guests.root_tree import Tree, variant

NAME = "cryptroot"
DEVICE = f"/dev/mapper/{NAME}"
PROMPT = f"Please unlock disk {NAME}"


def root_files(luks: Luks = TEST_VOLUME, options: str = "luks,initramfs") -> dict[str, File]:
    """What a tree needs so that its initramfs asks for the passphrase of this volume."""
    return {
        "/etc/crypttab": File(f"{NAME} UUID={luks.uuid} none {options}\n".encode()),
        "/etc/fstab": File(f"{DEVICE} / ext4 defaults 0 1\n".encode()),
    }


def encrypted_tree(base: Tree, *, luks: Luks = TEST_VOLUME, build_dir: str = BUILD) -> Tree:
    """The base with an initramfs that opens an encrypted root by passphrase, as Debian's installer would set it up."""
    return variant(base, "encrypted", files=root_files(luks), build_dir=build_dir)


def encrypted_image(tree: Tree, *, luks: Luks = TEST_VOLUME, build_dir: str = BUILD) -> str:
    """The tree inside a LUKS2 volume, made once; boot an overlay or a copy of it."""

    def make(entry: str) -> None:
        plain = ext4_image(tree.path, os.path.join(entry, "plain.img"))
        luks_image(plain, os.path.join(entry, "root.img"), luks)
        os.unlink(plain)

    return os.path.join(cached("encrypted-image", f"{tree.identity} {luks}", make, build_dir=build_dir), "root.img")
