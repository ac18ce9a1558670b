# SPDX-License-Identifier: Apache-2.0
"""A machine in a directory: LUKS2 volumes and fragment disks as files, settings of its own, and the real command line.

No dm-crypt is needed: libcryptsetup reads and writes headers of image files, and `cryptsetup` itself judges them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyquorum.cli.main import main
from keyquorum.linux import fragment_disk
from keyquorum.model.fragment_disk import DISK_SIZE

if TYPE_CHECKING:
    from keyquorum.model.fragment_disk import Entry

PASSPHRASE = b"correct horse"
VOLUME_SIZE = 17 << 20  # a stock header and its keyslots, and 1 MiB of data


@dataclass
class Said:
    """What a command did: its exit code, its words, and its JSON if it printed any."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Read standard output as one JSON object."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Return the lines to people, without their prefix."""
        lines = self.err.splitlines()
        assert all(line.startswith("keyquorum: ") for line in lines), self.err
        return [line.removeprefix("keyquorum: ") for line in lines]


def cryptsetup(*words: str, data: bytes = b"") -> str:
    """Run the real cryptsetup, which must succeed; give what it printed."""
    program = shutil.which("cryptsetup")
    assert program, "cryptsetup is not installed: apt-get install cryptsetup-bin"
    done = subprocess.run([program, "-q", *words], input=data, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"cryptsetup {' '.join(words)}: {done.stderr.decode()}"
    return done.stdout.decode()


def format_volume(path: str, *options: str) -> None:
    """Make a LUKS2 volume whose keyslot costs next to nothing."""
    with open(path, "wb") as file:
        file.truncate(VOLUME_SIZE)
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    cryptsetup("luksFormat", "--type", "luks2", *cheap, *options, "--key-file", "-", path, data=PASSPHRASE)


def opens_with(path: str, passphrase: bytes, *options: str) -> bool:
    """Ask cryptsetup whether a passphrase opens a volume."""
    words = ["cryptsetup", "open", "--test-passphrase", *options, "--key-file", "-", path]
    return subprocess.run(words, input=passphrase, capture_output=True, check=False, timeout=60).returncode == 0


@dataclass
class Bench:
    """One machine. `path("x")` is a file in its directory."""

    root: str
    volumes: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        """Return the path of a file of this machine."""
        return os.path.join(self.root, name)

    def run(self, *words: str) -> Said:
        """Run `keyquorum` in this process, through its real entry."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        return Said(code, out.getvalue(), err.getvalue())

    def write(self, name: str, content: bytes | str) -> str:
        """Write a file of mode 0600; return its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(path, 0o600)
        return path

    def volume(self, name: str = "vol.img", *options: str) -> str:
        """Make a volume that opens with `PASSPHRASE`; return its path."""
        path = self.path(name)
        format_volume(path, *options)
        self.volumes.append(cryptsetup("luksUUID", path).strip())
        return path

    def disk(self, name: str) -> str:
        """Make a fragment disk; return its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(DISK_SIZE)
        said = self.run("holder", "init-disk", "--yes", path)
        assert said.code == 0, said.err
        return path

    def policy(self, disks: list[str], threshold: int = 2, extra: str = "", name: str = "policy.toml") -> str:
        """Write a policy over fragment disks; return its path."""
        names = [f"disk-{number}" for number in range(1, len(disks) + 1)]
        text = f"version = 1\nthreshold = {threshold}\nof = {json.dumps(names)}\n{extra}\n"
        for holder, disk in zip(names, disks, strict=True):
            text += f'[holder.{holder}]\nkind = "disk"\ndevice = {json.dumps(disk)}\n'
        return self.write(name, text)

    def enroll(self, volume: str, policy: str, *options: str) -> Said:
        """Enrol without questions."""
        return self.run("enroll", volume, "--policy", policy, "--key-file", self.key_file, "--yes", *options)

    @property
    def key_file(self) -> str:
        """A file with the volumes' passphrase."""
        return self.path("key")

    def entries(self, disk: str) -> tuple[Entry, ...]:
        """Return what a fragment disk holds."""
        return fragment_disk.read(disk)[1]

    def anchor(self, volume: str) -> str:
        """Return the path of a volume's trust anchor."""
        return self.path(f"volumes/{cryptsetup('luksUUID', volume).strip()}.json")

    def enrolled(self, disks: int = 3, threshold: int = 2, *options: str) -> tuple[str, list[str], str]:
        """Make a volume, disks and a policy, and enrol; return their paths."""
        volume, made = self.volume(), [self.disk(f"disk-{number}") for number in range(1, disks + 1)]
        policy = self.policy(made, threshold)
        said = self.enroll(volume, policy, *options)
        assert said.code == 0, said.err
        return volume, made, policy


def snapshot(*paths: str) -> dict[str, bytes]:
    """Return the content of files."""
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            found[path] = file.read()
    return found
