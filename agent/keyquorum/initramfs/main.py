# SPDX-License-Identifier: Apache-2.0
"""The program `keyquorum-boot-image DESTDIR`, called by the initramfs hook.

It compiles the Python modules into DESTDIR itself and prints the list of what the hook is to put in (hook_list.py).
"""

from __future__ import annotations

import glob
import os
import sys

from keyquorum import process, speech
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.holders import REMOTE, custodian_exchange
from keyquorum.initramfs import enclave_files, hook_list, modules
from keyquorum.initramfs.enclave_files import custodian_of
from keyquorum.initramfs.wanted import BootVolume, boot_volumes
from keyquorum.linux import boot_network
from keyquorum.settings import FILE, Settings, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_VOLUMES = "/etc/keyquorum/boot-volumes"
_LAUNCHER = f"{modules.ROOT}/keyquorum-unlock"
_LIBRARIES = ("libcryptsetup.so.12", "libcrypto.so.3", "libsodium.so.23", "libsodium.so.26", "libgcc_s.so.1")
_TLS_LIBRARIES = ("libssl.so.3",)
_HAS_CUSTODIANS = "/etc/keyquorum/custodians"  # the boot script then mounts what the firmware's log is read from
_VSOCK_MODULES = ("vsock", "vmw_vsock_virtio_transport")  # an address may be of AF_VSOCK (docs/holders-enclave.md §5)
_NETWORK_UP = f"{modules.ROOT}/initramfs/network-up"
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
        f"{destination}/cryptroot/crypttab", settings.volumes, lambda text: speech.say(hook_list.note(text))
    )
    if not volumes:
        return 0
    kinds = frozenset().union(*(volume.needs for volume in volumes))
    measure = any(volume.volume_set.measure_pcr >= 0 for volume in volumes)
    loaded = modules.needed(kinds, measure=measure)
    for shared in modules.install(loaded, destination):
        speech.say(hook_list.program(shared))
    speech.say(hook_list.program(os.path.realpath(sys.executable)))
    for path in _libraries():
        speech.say(hook_list.program(path))
    with_tpm = measure or not kinds.isdisjoint({"tpm", *REMOTE})
    for module in (*(_TPM_MODULES if with_tpm else ()), *(_DISK_MODULES if "disk" in kinds else ())):
        speech.say(hook_list.driver(module))
    _own_files(volumes, settings, destination, [modules.ROOT, *modules.roots(loaded)])
    if "pkcs11" in kinds:
        _tokens(settings)
    if not kinds.isdisjoint(REMOTE):
        _custodians(volumes, settings, destination)
    if "enclave" in kinds:
        enclave_files.announce(volumes)
    return 0


def _libraries(names: tuple[str, ...] = _LIBRARIES) -> list[str]:
    """Return the libraries that are opened by name at run time, which no linker tells."""
    found = []
    for name in names:
        paths = [path for pattern in _LIBRARY_PATHS for path in sorted(glob.glob(f"{pattern}/{name}"))]
        found += paths[:1]
    return found


def _own_files(volumes: list[BootVolume], settings: Settings, destination: str, paths: list[str]) -> None:
    """Put in the launcher, which finds modules in `paths`, the trust anchors, the settings, what explains refusals."""
    interpreter = os.path.realpath(sys.executable)
    _write(
        destination + _LAUNCHER,
        f"#!{interpreter} -IS\nimport sys\nsys.path[0:0] = {paths!r}\n"
        "from keyquorum.process import leave\nfrom keyquorum.unlock.main import main\nleave(main())\n",
        0o755,
    )
    _write(destination + BOOT_VOLUMES, "".join(f"{volume.uuid} {volume.name}\n" for volume in volumes), 0o644)
    for volume in volumes:
        speech.say(hook_list.file(volume.anchor))
        for log in sorted(glob.glob(f"{glob.escape(settings.reference)}/{volume.uuid}-*.eventlog")):
            speech.say(hook_list.file(log))
    if os.path.exists(FILE):
        speech.say(hook_list.file(FILE))


def _tokens(settings: Settings) -> None:
    for module in settings.pkcs11_module:
        speech.say(hook_list.program(module))
    if not settings.pkcs11_module:
        speech.say(hook_list.note("a PKCS#11 holder is asked in the initramfs with pkcs11_module in keyquorum.conf"))


def _custodians(volumes: list[BootVolume], settings: Settings, destination: str) -> None:
    """Put in what asks custodians: TLS, the machine's identity, and what brings up the network."""
    _write(destination + _HAS_CUSTODIANS, "", 0o644)
    for path in _libraries(_TLS_LIBRARIES):
        speech.say(hook_list.program(path))
    speech.say(hook_list.file(_NETWORK_UP, boot_network.SCRIPT))
    for driver in ("af_packet", *_network_drivers(), *_VSOCK_MODULES):
        speech.say(hook_list.driver(driver))
    speech.say(hook_list.file(settings.machine))
    try:
        known = {name for name, _ in custodian_exchange.load_identity(settings.machine).custodians}
        for volume, placement in ((v, p) for v in volumes for p in v.volume_set.placements if p.kind in REMOTE):
            custodian = custodian_of(placement)
            if custodian not in known:
                speech.say(
                    hook_list.note(f"{placement.name} of {volume.name}: this machine is not enrolled at {custodian}")
                )
    except KeyquorumError as error:
        speech.say(hook_list.note(f"no custodian will be asked in the initramfs: {error.message}"))


def _network_drivers(root: str = "/sys/class/net") -> list[str]:
    """Return the kernel modules of the interfaces that the machine has now; what is built in needs none."""
    paths = sorted(glob.glob(f"{glob.escape(root)}/*/device/driver/module"))
    return list(dict.fromkeys(os.path.basename(os.path.realpath(path)) for path in paths))


def _write(path: str, text: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
