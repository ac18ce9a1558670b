# SPDX-License-Identifier: Apache-2.0
"""The program `keyquorum-boot-image DESTDIR`, called by the initramfs hook.

It compiles the Python modules into DESTDIR itself and prints, for the hook to copy with their libraries:
`exec SOURCE`, `file SOURCE TARGET`, `module NAME` (a kernel module) and `note TEXT`.
"""

from __future__ import annotations

import glob
import os
import sys

from keyquorum import process, speech
from keyquorum.errors import UsageError
from keyquorum.initramfs import modules
from keyquorum.initramfs.wanted import BootVolume, boot_volumes
from keyquorum.settings import FILE, Settings, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_VOLUMES = "/etc/keyquorum/boot-volumes"
_LAUNCHER = f"{modules.ROOT}/keyquorum-unlock"
_LIBRARIES = ("libcryptsetup.so.12", "libcrypto.so.3", "libsodium.so.23", "libsodium.so.26", "libgcc_s.so.1")
_LIBRARY_PATHS = ("/usr/lib/*-linux-gnu*", "/lib/*-linux-gnu*", "/usr/lib", "/usr/lib64")
_TPM_MODULES = ("tpm_crb", "tpm_tis", "tpm_tis_spi", "tpm_tis_i2c", "tpm_tis_i2c_cr50", "tpm_ftpm_tee", "tpm_ibmvtpm")
_DISK_MODULES = ("virtio_blk", "virtio_scsi", "sd_mod", "nvme", "usb_storage", "uas")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    words = list(sys.argv[1:] if argv is None else argv)
    return process.run(lambda: _fill(words))


def _fill(words: list[str]) -> int:
    if len(words) != 1 or not os.path.isdir(words[0]):
        raise UsageError("usage: keyquorum-boot-image DESTDIR", "it is called by the initramfs hook")
    destination, settings = words[0], load()
    volumes = boot_volumes(
        f"{destination}/cryptroot/crypttab", settings.volumes, lambda text: speech.say(f"note {text}")
    )
    if not volumes:
        return 0
    kinds = frozenset().union(*(volume.needs for volume in volumes))
    measure = any(volume.volume_set.measure_pcr >= 0 for volume in volumes)
    loaded = modules.needed(kinds, measure=measure)
    for shared in modules.install(loaded, destination):
        speech.say(f"exec {shared}")
    speech.say(f"exec {os.path.realpath(sys.executable)}")
    for path in _libraries():
        speech.say(f"exec {path}")
    for module in (*(_TPM_MODULES if "tpm" in kinds or measure else ()), *(_DISK_MODULES if "disk" in kinds else ())):
        speech.say(f"module {module}")
    _own_files(volumes, settings, destination)
    if "pkcs11" in kinds:
        _tokens(settings)
    return 0


def _libraries() -> list[str]:
    """Return the libraries that are opened by name at run time, which no linker tells."""
    found = []
    for name in _LIBRARIES:
        paths = [path for pattern in _LIBRARY_PATHS for path in sorted(glob.glob(f"{pattern}/{name}"))]
        found += paths[:1]
    return found


def _own_files(volumes: list[BootVolume], settings: Settings, destination: str) -> None:
    """Put in the launcher, the trust anchors, the settings, and what explains a TPM's refusal."""
    interpreter = os.path.realpath(sys.executable)
    _write(
        destination + _LAUNCHER,
        f"#!{interpreter} -IS\nimport sys\nsys.path.insert(0, {modules.ROOT!r})\n"
        "from keyquorum.process import leave\nfrom keyquorum.unlock.main import main\nleave(main())\n",
        0o755,
    )
    _write(destination + BOOT_VOLUMES, "".join(f"{volume.uuid} {volume.name}\n" for volume in volumes), 0o644)
    for volume in volumes:
        speech.say(f"file {volume.anchor} {volume.anchor}")
        for log in sorted(glob.glob(f"{glob.escape(settings.reference)}/{volume.uuid}-*.eventlog")):
            speech.say(f"file {log} {log}")
    if os.path.exists(FILE):
        speech.say(f"file {FILE} {FILE}")


def _tokens(settings: Settings) -> None:
    for module in settings.pkcs11_module:
        speech.say(f"exec {module}")
    if not settings.pkcs11_module:
        speech.say("note a PKCS#11 holder needs pkcs11_module in keyquorum.conf to be asked in the initramfs")


def _write(path: str, text: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
