# SPDX-License-Identifier: Apache-2.0
"""The boot image of this machine: does it open a volume, and rebuilding it so that it knows the volume's owner."""

from __future__ import annotations

import os

from keyquorum.errors import KeyquorumError
from keyquorum.linux import run
from keyquorum.linux.block import stacked_on

_PROGRAM = "update-initramfs"
_SECONDS = 900.0
_CRYPTTAB = "/etc/crypttab"
_BOOT_MOUNTS = ("/", "/usr")


def opens_at_boot(uuid: str, sysfs: str = "/sys", crypttab: str = _CRYPTTAB) -> bool:
    """Say whether an initramfs built by initramfs-tools opens this volume: root, /usr, or crypttab's `initramfs`."""
    try:
        run.find(_PROGRAM)
    except KeyquorumError:
        return False
    return _under_boot_mounts(uuid, sysfs) or _marked_in_crypttab(uuid, crypttab)


def rebuild() -> None:
    """Rebuild every installed kernel's initramfs."""
    try:
        run.run_checked((_PROGRAM, "-u", "-k", "all"), run.Limits(seconds=_SECONDS))
    except KeyquorumError as error:
        raise KeyquorumError(
            f"what was to be done is done, but the initramfs was not rebuilt: {error.message}",
            "until it is, the next boot may ask for the passphrase: update-initramfs -u",
        ) from None


def _under_boot_mounts(uuid: str, sysfs: str) -> bool:
    for mount in _BOOT_MOUNTS:
        device = os.stat(mount).st_dev
        if stacked_on(f"{sysfs}/dev/block/{os.major(device)}:{os.minor(device)}", uuid):
            return True
    return False


def _marked_in_crypttab(uuid: str, crypttab: str) -> bool:
    try:
        with open(crypttab, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return False
    for line in lines:
        fields = line.split()
        if len(fields) >= 4 and not fields[0].startswith("#") and "initramfs" in fields[3].split(","):
            source = fields[1]
            if source.lower() == f"uuid={uuid}" or os.path.realpath(source) == _by_uuid(uuid):
                return True
    return False


def _by_uuid(uuid: str) -> str:
    return os.path.realpath(f"/dev/disk/by-uuid/{uuid}")
