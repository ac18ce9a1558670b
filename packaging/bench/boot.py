# SPDX-License-Identifier: Apache-2.0
"""At boot: from udev's event of the LUKS2 device to udev's event of the mapping, against a key file in the initramfs.

Both boot the same machine (disks, TPM, kernel); only the initramfs differs. uevents.c, started before udev by a file
that initramfs-tools sources, tells the two moments. The machine is switched off once they are known.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from boots.enrolled import NAME, Scene, enrolled_root
from guests.guest_file import File
from guests.machine import BOOT_SECONDS
from guests.root_tree import Tree, guest_tree, variant

from .cpio import archive
from .table import BY_NAME, Outcome, Sample
from .tell import say

_HERE = os.path.dirname(os.path.abspath(__file__))
_KEY = "/etc/keys/root.key"
_SAID = re.compile(r"bench: device seen ([0-9.]+) mapping seen ([0-9.]+)")


def prepare() -> None:
    """Enrol the machine, and build the initramfs that has a key file."""
    key_file_tree()


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """Boot both in turn."""
    enrolled = enrolled_root()
    with tempfile.TemporaryDirectory() as directory:
        watcher = os.path.join(directory, "uevents")
        source = os.path.join(_HERE, "uevents.c")
        subprocess.run(["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", watcher, source], check=True)
        images = {}
        for name, initrd in (("ours", enrolled.path("initrd")), ("key file", key_file_tree().initrd)):
            images[name] = os.path.join(directory, f"initrd-{name.replace(' ', '-')}")
            add_watcher(initrd, images[name], Path(watcher).read_bytes(), enrolled.recipe.luks.uuid)
        times: dict[str, list[float]] = {name: [] for name in images}
        for number in range(rounds + 1):
            say(f"boot {number} of {rounds}: {', '.join(images)}")
            for name, initrd in images.items():
                seconds = _boot(os.path.join(directory, f"{name[0]}{number}"), initrd)
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


def add_watcher(initrd: str, into: str, watcher: bytes, uuid: str) -> None:
    """Append an archive: the kernel unpacks them one after the other, and init sources every file of conf/conf.d."""
    start = f"/bench-uevents {uuid} {NAME} &\n".encode()
    image = Path(initrd).read_bytes()
    image += bytes(-len(image) % 4)
    files = {"bench-uevents": File(watcher, 0o755), "conf/conf.d/bench": File(start, 0o644)}
    Path(into).write_bytes(image + archive(files))


def _boot(directory: str, initrd: str) -> float:
    """Seconds between the two moments of one boot."""
    os.mkdir(directory)
    scene = Scene(enrolled_root(), directory)
    with scene.machine(initrd=initrd) as vm:
        found = vm.wait_console(_SAID.pattern, BOOT_SECONDS)
        return float(found[2]) - float(found[1])
