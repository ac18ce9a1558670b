# SPDX-License-Identifier: Apache-2.0
"""What a test root is made of: packages per suite, and the few settings that make a boot quiet, quick and enterable.

The root stays a stock Debian. What is changed serves time under emulation only, and never what an unlock does: units
that work at night and generators of nothing are masked, the machine has an id already (no first-boot presets), caches
are marked fresh.
"""

import os

_EVERYWHERE = (
    "linux-image-cloud-amd64 systemd systemd-sysv udev dbus initramfs-tools cryptsetup cryptsetup-initramfs python3 "
    "python3-systemd python3-pyroute2 python3-tpm2-pytss libsodium23 kmod zstd tpm2-tools tpm-udev e2fsprogs iproute2 "
    "fdisk gdisk softhsm2 opensc strace procps less"
)
PACKAGES: dict[str, tuple[str, ...]] = {
    "trixie": (*_EVERYWHERE.split(), "systemd-cryptsetup"),  # a package of its own since Debian 13
    "bookworm": tuple(_EVERYWHERE.split()),
}
PEERS = ("clevis", "clevis-luks", "clevis-tpm2", "clevis-initramfs", "tang")

LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/man/*", "/usr/share/locale/*")
MACHINE_ID = "6b657971756f72756d2d67756573740a"
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",  # there is no screen, only the serial console
    # Each unit costs half a second to two under TCG, and no test here is about these.
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-hostnamed.socket",
    "systemd-initctl.socket",
    "systemd-journal-flush.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-sysext.socket",
    "systemd-udev-load-credentials.service",
)
# Each is a process, a tenth of a second under TCG even where it finds nothing to generate, as these do.
_NO_GENERATORS = (
    "debug",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
    "ssh",
    "system-update",
    "sysv",
    "veritysetup",
)
_FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost\n",
    "etc/locale.conf": "LANG=C.UTF-8\n",
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/fstab": "# the root is named on the kernel command line\n",
    "etc/initramfs-tools/conf.d/guests": "MODULES=most\n",
    # Loading these takes a second under TCG, systemd's ip_tables often six, and nothing here uses them.
    "etc/modprobe.d/guests.conf": "".join(
        f"blacklist {module}\n" for module in ("ip_tables", "kvm_amd", "kvm_intel", "powernow_k8", "qemu_fw_cfg")
    ),
}
DESCRIPTION = f"{LEFT_OUT} {_MASKED} {_NO_GENERATORS} {_FILES}"


def settle(root: str) -> None:
    """Put the settings into a fresh root."""
    for path, text in _FILES.items():
        where = os.path.join(root, path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "w", encoding="utf-8") as file:
            file.write(text)
    for unit in _MASKED:
        os.symlink("/dev/null", os.path.join(root, "etc/systemd/system", unit))
    generators = os.path.join(root, "etc/systemd/system-generators")
    os.makedirs(generators)
    for name in _NO_GENERATORS:
        os.symlink("/dev/null", os.path.join(generators, f"systemd-{name}-generator"))
    tty = os.path.join(root, "etc/systemd/system/getty.target.wants/getty@tty1.service")
    if os.path.lexists(tty):
        os.unlink(tty)
    _no_root_password(os.path.join(root, "etc/shadow"))
    mark_fresh(root)


def mark_fresh(root: str) -> None:
    """Tell systemd that what it rebuilds after a change of /usr is up to date."""
    for directory in ("etc", "var"):
        with open(os.path.join(root, directory, ".updated"), "w", encoding="utf-8") as stamp:
            stamp.write("# fresh\n")


def _no_root_password(shadow: str) -> None:
    with open(shadow, encoding="utf-8") as file:
        lines = file.read().splitlines()
    with open(shadow, "w", encoding="utf-8") as file:
        for line in lines:
            name, _, rest = line.split(":", 2)
            password = "" if name == "root" else line.split(":")[1]
            file.write(f"{name}:{password}:{rest}\n")
