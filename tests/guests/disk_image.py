# SPDX-License-Identifier: Apache-2.0
"""Disk images without mounting anything: ext4 from a directory, GPT, and throw-away layers for single tests."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from guests.cache import cached
from guests.extents import copy_into
from guests.places import BUILD
from guests.root_tree import Tree
from guests.tools import run

MEBIBYTE = 1 << 20
SECTOR = 512
FREE_SPACE = 256 * MEBIBYTE
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
LUKS = "CA7D7CCB-63ED-4C53-861C-1742536059CC"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_BLOCK = 4096


def empty_image(path: str, size: int) -> str:
    """A blank disk, all holes."""
    with open(path, "wb") as image:
        image.truncate(size)
    return path


def ext4_image(directory: str, path: str, *, size: int | None = None, label: str = "root") -> str:
    """An ext4 file system with the content of a directory, owners and attributes included.

    Nothing is left for the kernel to initialise later: a guest writes only what it means to write.
    """
    if size is None:
        used = int(run(["du", "--summarize", "--block-size=1", directory]).split()[0])
        size = (used * 9 // 8 + FREE_SPACE) // MEBIBYTE * MEBIBYTE
    empty_image(path, size)
    options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    run(["mke2fs", "-q", "-t", "ext4", "-b", str(_BLOCK), "-L", label, "-m", "0", "-E", options, "-d", directory, path])
    return path


def root_image(tree: Tree, *, build_dir: str = BUILD) -> str:
    """The tree as an ext4 disk, made once; boot an overlay or a copy of it."""

    def make(entry: str) -> None:
        ext4_image(tree.path, os.path.join(entry, "root.img"))

    return os.path.join(cached("root-image", tree.identity, make, build_dir=build_dir), "root.img")


def overlay(base: str, path: str, *, backing_format: str = "raw") -> str:
    """A qcow2 layer over an image: a disk for one test that leaves the image as it is."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", os.path.abspath(base), "-F", backing_format, path])
    return path


@dataclass(frozen=True)
class Partition:
    """A partition with the content of an image, or `size` bytes of nothing."""

    name: str
    image: str | None = None
    size: int = 0
    type_guid: str = LINUX
    guid: str | None = None

    @property
    def bytes(self) -> int:
        """Its size, in whole MiB."""
        size = os.stat(self.image).st_size if self.image else self.size
        return -(-size // MEBIBYTE) * MEBIBYTE


def gpt_image(path: str, partitions: Sequence[Partition], *, guid: str | None = None) -> list[int]:
    """A disk with these partitions in a row; gives their offsets in bytes."""
    offsets, at = [], MEBIBYTE
    for partition in partitions:
        offsets.append(at)
        at += partition.bytes
    empty_image(path, at + MEBIBYTE)
    lines = ["label: gpt", *([f"label-id: {guid}"] if guid else [])]
    for partition, offset in zip(partitions, offsets, strict=True):
        fields = [f"start={offset // SECTOR}", f"size={partition.bytes // SECTOR}", f"type={partition.type_guid}"]
        fields += [f'name="{partition.name}"', *([f"uuid={partition.guid}"] if partition.guid else [])]
        lines.append(", ".join(fields))
    run(["sfdisk", "--quiet", "--no-tell-kernel", "--no-reread", path], data="\n".join(lines).encode())
    for partition, offset in zip(partitions, offsets, strict=True):
        if partition.image:
            copy_into(partition.image, path, offset)
    return offsets
