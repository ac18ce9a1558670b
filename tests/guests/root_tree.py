# SPDX-License-Identifier: Apache-2.0
"""Debian roots as directories: built once per recipe by mmdebstrap, then varied by copies.

    base = guest_tree("trixie")                                     # Debian 13 with the agent, 1 min the first time
    mine = variant(base, "mine", debs=[deb], files={"/etc/x": File(b"y")})

A tree is never changed after it was made: tests share it. What a test wants different is a variant.
"""

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guests import recipe
from guests.agent import AGENT_FILES
from guests.cache import cached, file_digest, identity
from guests.chroot import Chroot
from guests.guest_file import File
from guests.places import BUILD
from guests.tools import run

BOOTSTRAP_SECONDS = 900.0
COPY_SECONDS = 120.0


@dataclass(frozen=True)
class Tree:
    """A root directory that is not changed any more."""

    path: str

    @property
    def kernel(self) -> str:
        """The kernel image inside the tree."""
        return self._newest("boot/vmlinuz-*")

    @property
    def initrd(self) -> str:
        """The initramfs that belongs to the kernel."""
        return self._newest("boot/initrd.img-*")

    @property
    def identity(self) -> str:
        """What belongs into the recipe of things made from this tree."""
        return f"{self.path} {identity(os.path.dirname(self.path))}"

    def _newest(self, pattern: str) -> str:
        found = sorted(glob.glob(os.path.join(self.path, pattern)))
        if not found:
            raise FileNotFoundError(f"no {pattern} in {self.path}")
        return found[-1]


def root_tree(suite: str = "trixie", *, extra: Sequence[str] = (), build_dir: str = BUILD) -> Tree:
    """A stock Debian root of the suite, with `extra` packages (and nothing of ours)."""
    packages = (*recipe.PACKAGES[suite], *sorted(extra))

    def make(entry: str) -> None:
        archive = os.path.join(entry, "root.tar")
        left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.LEFT_OUT]
        include = f"--include={','.join(packages)}"
        # The options above would also hold for packages installed later, whose manual pages a test may look for.
        forget = '--customize-hook=rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"'
        argv = ["mmdebstrap", "--variant=minbase", "--format=tar", include, *left_out, forget, suite, archive]
        run(argv, timeout=BOOTSTRAP_SECONDS)
        root = os.path.join(entry, "root")
        os.mkdir(root, 0o755)
        run(["tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive])
        recipe.settle(root)

    entry = cached(suite, f"{suite} {packages} {recipe.DESCRIPTION}", make, build_dir=build_dir)
    return Tree(os.path.join(entry, "root"))


def guest_tree(suite: str = "trixie", *, extra: Sequence[str] = (), build_dir: str = BUILD) -> Tree:
    """The usual start of a test: a Debian root that answers `Machine.run`."""
    base = root_tree(suite, extra=extra, build_dir=build_dir)
    return variant(base, f"{suite}-guest", files=AGENT_FILES, initramfs=False, build_dir=build_dir)


def variant(
    base: Tree,
    name: str,
    *,
    debs: Sequence[str] = (),
    files: Mapping[str, File] | None = None,
    commands: Sequence[str] = (),
    initramfs: bool = True,
    build_dir: str = BUILD,
) -> Tree:
    """A copy of `base` with packages installed, then files written, then shell commands run, then a new initramfs."""
    files = files or {}
    digests = [f"{os.path.basename(deb)} {file_digest(deb)}" for deb in debs]
    described = [f"{path} {file.mode:o} {file.content!r}" for path, file in sorted(files.items())]
    text = "\n".join([base.identity, *digests, *described, *commands, f"initramfs={initramfs}"])

    def make(entry: str) -> None:
        root = os.path.join(entry, "root")
        copy_tree(base, root)
        chroot = Chroot(root)
        chroot.install(debs)
        for path, file in files.items():
            chroot.write(path, file)
        for command in commands:
            chroot.run(["sh", "-ec", command])
        if initramfs:
            chroot.update_initramfs()
        recipe.mark_fresh(root)

    return Tree(os.path.join(cached(name, text, make, build_dir=build_dir), "root"))


def copy_tree(tree: Tree, path: str) -> None:
    """A copy that may be changed: owners, modes, times, links and attributes as in the original."""
    run(["cp", "-a", "--reflink=auto", tree.path, path], timeout=COPY_SECONDS)
