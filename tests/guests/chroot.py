# SPDX-License-Identifier: Apache-2.0
"""Programs run inside a root directory, for package installation and initramfs builds.

Each run has its own mount and process namespaces: /proc, /sys, /dev, /run and /tmp exist for it alone and are gone
with its last process, however it ends. The host's mount table never changes, so there is nothing to clean up.
A disk image may be shown where a machine has its disk; it is a file there, and not writable.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guests.guest_file import File
from guests.tools import run

# Device nodes are bound one by one: an installer script cannot reach the host's disks.
_ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir -p "$root/dev/shm" "$root/dev/pts" "$root/run/lock"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
    mkdir -p "$root${1%/*}"
    : > "$root$1"
    mount --bind -o ro "$2" "$root$1"
    shift 2
done
shift
exec chroot "$root" "$@"
"""
_NAMESPACES = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child=KILL"]


@dataclass(frozen=True)
class Chroot:
    """A root directory that may be changed (see root_tree.copy_tree)."""

    path: str
    disks: Mapping[str, str] = field(default_factory=dict)
    """Disk images to be shown, by their paths below /dev."""

    def run(self, argv: Sequence[str], *, timeout: float = 300.0, data: bytes = b"") -> bytes:
        """Run a program inside, without network; output, or ToolError with the end of its errors."""
        shown = [word for place, image in self.disks.items() for word in (place, os.path.abspath(image))]
        words = [self.path, *shown, "--", *argv]
        return run([*_NAMESPACES, "sh", "-c", _ENTER, "enter", *words], timeout=timeout, data=data)

    def write(self, path: str, file: File) -> None:
        """Write a file at an absolute guest path; missing directories are made."""
        where = self.host_path(path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        if os.path.lexists(where):
            os.unlink(where)  # never through a link: it would be followed on the host
        with open(where, "wb") as out:
            out.write(file.content)
        os.chmod(where, file.mode)

    def read(self, path: str) -> bytes:
        """The content of a file at an absolute guest path."""
        with open(self.host_path(path), "rb") as file:
            return file.read()

    def host_path(self, path: str) -> str:
        """Where an absolute guest path is on the host; a directory that leads elsewhere by a link is refused."""
        where = os.path.join(self.path, path.removeprefix("/"))
        inside = os.path.realpath(self.path) + os.sep
        if not f"{os.path.realpath(os.path.dirname(where))}{os.sep}".startswith(inside):
            raise ValueError(f"{path} leads out of {self.path}")
        return where

    def install(self, debs: Sequence[str]) -> None:
        """Install package files; everything they depend on must be in the root already."""
        if not debs:
            return
        inside = os.path.join(self.path, "var/tmp/debs")
        os.mkdir(inside, 0o755)
        try:
            for deb in debs:
                shutil.copy(deb, inside)
            self.run(["dpkg", "-i", *(f"/var/tmp/debs/{os.path.basename(deb)}" for deb in debs)])
        finally:
            shutil.rmtree(inside)

    def update_initramfs(self) -> None:
        """Make the initramfs anew for every kernel in the root."""
        self.run(["update-initramfs", "-u", "-k", "all"])
