# SPDX-License-Identifier: Apache-2.0
"""What an initramfs grows by: keyquorum for {disk, TPM} and clevis for {tpm2, tang, sss}, each over cryptsetup alone.

Each pair is built alike: clevis' two in the root directory that they are for, keyquorum's two in the enrolled machine
itself, because its hook reads the volume's header; the second one with its hook and scripts moved away.
"""

from __future__ import annotations

import os
import tempfile

from boots.enrolled import Scene, enrolled_root
from guests.cache import cached
from guests.encrypted_root import encrypted_tree, root_files
from guests.recipe import PEERS
from guests.root_tree import guest_tree, variant

from .initramfs import Image, growth, read_image
from .table import BY_NAME, PUBLISHED_GROWTH, Outcome, Sample

_BUILD_SECONDS = 900.0
_BUILD = r"""
set -e
cd /usr/share/initramfs-tools
mkinitramfs -o /root/with
for file in hooks/keyquorum scripts/*/keyquorum; do
    mkdir -p "/root/away/$(dirname "$file")"
    mv "$file" "/root/away/$file"
done
mkinitramfs -o /root/without
"""


def prepare() -> None:
    """Build and boot what images are taken from; the two pairs are kept for the next time."""
    own_images()
    encrypted_tree(guest_tree())
    clevis_image()


def measure() -> tuple[list[Outcome], dict[str, object]]:
    """Both growths in bytes, and what they are made of."""
    directory = own_images()
    pairs = {
        "keyquorum": (os.path.join(directory, "without"), os.path.join(directory, "with")),
        "clevis": (encrypted_tree(guest_tree()).initrd, clevis_image()),
    }
    grown, information = {}, dict[str, object]()
    for name, (before_path, after_path) in pairs.items():
        before, after = read_image(before_path), read_image(after_path)
        sizes = before.recompressed(), after.recompressed()
        grown[name] = Sample((float(sizes[1] - sizes[0]),))
        information[name] = _describe(before, after, sizes)
    published = Sample((float(PUBLISHED_GROWTH),))
    outcomes = [
        Outcome(BY_NAME["growth"], grown["keyquorum"], grown["clevis"]),
        Outcome(BY_NAME["growth-published"], grown["keyquorum"], published),
    ]
    return outcomes, information


def own_images() -> str:
    """A directory with the enrolled machine's image as it is, `with`, and what it would be `without` keyquorum."""
    enrolled = enrolled_root()

    def make(entry: str) -> None:
        with tempfile.TemporaryDirectory() as directory, Scene(enrolled, directory).machine() as vm:
            vm.wait_boot()
            vm.run(_BUILD, timeout=_BUILD_SECONDS)
            for name in ("with", "without"):
                with open(os.path.join(entry, name), "wb") as file:
                    file.write(vm.get(f"/root/{name}", timeout=_BUILD_SECONDS))

    return cached("bench-images", f"{enrolled.directory}\n{_BUILD}", make)


def clevis_image() -> str:
    """The initramfs of the same Debian with an encrypted root, clevis and its parts installed."""
    return variant(guest_tree(extra=PEERS), "bench-clevis", files=root_files()).initrd


def _describe(before: Image, after: Image, sizes: tuple[int, int]) -> dict[str, object]:
    return {
        "before": {"as built": before.as_built, "unpacked": before.unpacked, "zstd -19": sizes[0]},
        "after": {"as built": after.as_built, "unpacked": after.unpacked, "zstd -19": sizes[1]},
        "made of": [
            {"group": part.name, "files": part.files, "unpacked": part.unpacked, "zstd -19 alone": part.alone}
            for part in growth(before, after)
        ],
    }
