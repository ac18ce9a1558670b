# SPDX-License-Identifier: Apache-2.0
"""Step 5: hand the volume key to dm-crypt through the kernel keyring, and measure what was opened (docs/boot.md §7)."""

from __future__ import annotations

from keyquorum.errors import KeyquorumError, TamperingError, UsageError
from keyquorum.linux import block, cryptsetup
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.volume_set import VolumeSet
    from keyquorum.secret import VolumeKey


class KeyLink(Record):
    """A key for the volume key beside dm-crypt's: `keyring` as keyctl(1) names it, `kind` "user" or "logon"."""

    keyring: str
    kind: str
    description: str


class Mapping(Record):
    """How the volume is to be mapped: its name, libcryptsetup's flags, and where the key is linked, if anywhere."""

    name: str
    flags: int = 0
    link: KeyLink | None = None


KEY_TYPES = ("user", "logon")
CRYPTTAB_FLAGS = {
    "discard": cryptsetup.ACTIVATE_ALLOW_DISCARDS,
    "read-only": cryptsetup.ACTIVATE_READONLY,
    "readonly": cryptsetup.ACTIVATE_READONLY,
    "same-cpu-crypt": cryptsetup.ACTIVATE_SAME_CPU_CRYPT,
    "submit-from-crypt-cpus": cryptsetup.ACTIVATE_SUBMIT_FROM_CRYPT_CPUS,
    "no-read-workqueue": cryptsetup.ACTIVATE_NO_READ_WORKQUEUE,
    "no-write-workqueue": cryptsetup.ACTIVATE_NO_WRITE_WORKQUEUE,
}


def open_volume(header: Header, volume_set: VolumeSet, volume_key: VolumeKey, mapping: Mapping) -> None:
    """Map the volume from the private header; the key's length and digest are verified before the kernel sees it.

    A mapping of this name that exists already is success: somebody typed the passphrase meanwhile.
    """
    if volume_key.size != volume_set.key_size:
        raise TamperingError("volume key", "length", f"is {volume_key.size}, enrolled was {volume_set.key_size}")
    if mapping.link is not None:
        cryptsetup.link_volume_key(header, mapping.link.keyring, mapping.link.kind, mapping.link.description)
    header.activate(mapping.name, volume_key, mapping.flags)
    refuse_taken_name(mapping.name, header.uuid)


def refuse_taken_name(name: str, uuid: str) -> None:
    """Refuse a mapping of this name that is of another volume; raises `UsageError`."""
    mapped = block.mapped_uuid(name)
    if mapped and not mapped.startswith("CRYPT-LUKS2-" + uuid.replace("-", "") + "-"):
        raise UsageError(
            f"/dev/mapper/{name} exists already and is another volume",
            f"give another name, or close that one: cryptsetup close {name}",
        )


def measure(
    volume_set: VolumeSet, volume_key: VolumeKey, mapping: Mapping, tpm_device: str, warn: Callable[[str], None]
) -> None:
    """Extend the PCR that records which volume was opened (I5); a failure is told and does not undo the opening."""
    if volume_set.measure_pcr < 0:
        return
    from keyquorum.tpm2.measurement import measure_volume_key

    try:
        measure_volume_key(tpm_device, volume_set.measure_pcr, mapping.name, volume_set.volume, volume_key)
    except KeyquorumError as error:
        warn(f"PCR {volume_set.measure_pcr} was not extended: {error.message}")
