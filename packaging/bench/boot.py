# SPDX-License-Identifier: Apache-2.0
"""At boot: from the moment the disks are there to the word that the root is mapped, against a key file in the image.

Both boot the same machine (disks, TPM, kernel); only the initramfs differs. The two moments are those at which the
lines came out of the serial console, on the host's clock. The machine is switched off once they are known.
"""

from __future__ import annotations

import os
import tempfile

from boots.enrolled import NAME, OPENED, Scene, enrolled_root
from guests.guest_file import File
from guests.root_tree import Tree, guest_tree, variant

from .table import BY_NAME, Outcome, Sample
from .tell import say

_KEY = "/etc/keys/root.key"
_DEVICE_SEEN = "Begin: Running /scripts/local-top"  # udev has looked at all disks; from here on the two ways differ
_MAPPED = {"ours": OPENED, "key file": f"cryptsetup: {NAME}: set up successfully"}


def prepare() -> None:
    """Enrol the machine, and build the initramfs that has a key file."""
    key_file_tree()


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """Boot both in turn."""
    images = {"ours": enrolled_root().path("initrd"), "key file": key_file_tree().initrd}
    times: dict[str, list[float]] = {name: [] for name in images}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds + 1):
            say(f"boot {number} of {rounds}: {', '.join(images)}")
            for name, initrd in images.items():
                seconds = _boot(os.path.join(directory, f"{name[0]}{number}"), initrd, _MAPPED[name])
                if number:  # the first boots fill the host's page cache
                    times[name].append(seconds)
    outcome = Outcome(BY_NAME["boot"], Sample(tuple(times["ours"])), Sample(tuple(times["key file"])))
    return [outcome], {}


def key_file_tree() -> Tree:
    """Debian with cryptsetup only, whose initramfs has the key file of the enrolled machine's root."""
    luks = enrolled_root().recipe.luks
    files = {
        "/etc/crypttab": File(f"{NAME} UUID={luks.uuid} {_KEY} luks,initramfs\n".encode()),
        "/etc/fstab": File(f"/dev/mapper/{NAME} / ext4 defaults 0 1\n".encode()),
        _KEY: File(luks.passphrase, 0o600),
        "/etc/cryptsetup-initramfs/conf-hook": File(b'KEYFILE_PATTERN="/etc/keys/*.key"\n'),
        "/etc/initramfs-tools/conf.d/umask": File(b"UMASK=0077\n"),
    }
    return variant(guest_tree(), "bench-keyfile", files=files)


def _boot(directory: str, initrd: str, mapped: str) -> float:
    """Seconds between the two moments of one boot."""
    os.mkdir(directory)
    with Scene(enrolled_root(), directory).machine(initrd=initrd) as vm:
        seen = vm.time_on_console(_DEVICE_SEEN)
        return vm.time_on_console(mapped) - seen
