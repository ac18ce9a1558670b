# SPDX-License-Identifier: Apache-2.0
"""Who may write the kernel command line gets no volume opened for a shell (docs/boot.md §2): script and generator agree.

The script runs in a root of its own, in which /proc/cmdline says what a test wants; Debian's crypttab functions are
reduced to one entry there. The boots use the real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "hooks/initramfs-tools/scripts/local-top/keyquorum"
GENERATOR = REPOSITORY / "systemd/system-generators/keyquorum-generator"
UUID = "0e64fb5c-1a3c-4a5c-8f2d-6b1c7d1e5ab0"
USUAL = "BOOT_IMAGE=/vmlinuz root=/dev/mapper/root ro quiet splash console=ttyS0,115200n8 panic=10"
GOES_ON = [
    "",
    "init=/sbin/init",
    "init=/lib/systemd/systemd",
    "systemd.unit=multi-user.target",
    "systemd.log_level=info",
]
STOPS = [
    "rescue",
    "emergency",
    "single",
    "s",
    "S",
    "1",
    "-b",
    '"single"',
    "'emergency'",
    "res\\cue",
    "systemd.unit=rescue.target",
    "systemd.unit=emergency.target",
    'systemd.unit="emergency.target"',
    '"systemd.unit=rescue"',
    "systemd.debug-shell",
    "systemd.debug_shell=1",
    "systemd.wants=debug-shell.service",
    "systemd.run=/bin/sh",
    "systemd.set_credential=tmpfiles.extra:f",
    "systemd.set_credential_binary=tmpfiles.extra:Zg==",
    "systemd.set-credential=tmpfiles.extra:f",
    "systemd.setenv=SYSTEMD_SULOGIN_FORCE=1",
    "keyquorum=off",
]
STOPS_THE_INITRAMFS = [
    "break",
    "break=mount",
    "init=/bin/sh",
    "init=/usr/bin/bash",
    "init=//bin/sh",
    "init=/./bin/sh",
    "init=/usr/sbin/sulogin",
    "init=/sbin/../bin/sh",
    '"init=/bin/sh"',
    "cryptopts=source=/dev/vdb,target=root",
]


def place(root: Path, program: str, target: str) -> None:
    """Copy a program of this machine and its libraries."""
    found = shutil.which(program)
    assert found, program
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for source, name in ((found, target), *((path, path) for path in re.findall(r"(/\S+) \(0x", listed))):
        where = root / name.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(source), where)


def write(root: Path, path: str, text: str, mode: int = 0o755) -> None:
    where = root / path.lstrip("/")
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(text)
    where.chmod(mode)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("initramfs")
    for program, target in (("dash", "/bin/sh"), ("cat", "/bin/cat"), ("mkdir", "/bin/mkdir"), ("env", "/usr/bin/env")):
        place(made, program, target)
    write(made, "/sbin/modprobe", "#!/bin/sh\n")
    write(made, "/scripts/functions", "")
    write(made, "/dev/null", "")
    write(made, "/etc/keyquorum/boot-volumes", f"11111111-1a3c-4a5c-8f2d-6b1c7d1e5ab0 other\n{UUID} my root\n")
    write(made, "/usr/lib/keyquorum/keyquorum-unlock", '#!/bin/sh\nprintf "%s|" "$@" >&2\nenv >/run/environment\n')
    entry = 'CRYPTTAB_NAME="my root" CRYPTTAB_SOURCE=UUID=x CRYPTTAB_OPTIONS=luks,discard'
    write(made, "/lib/cryptsetup/functions", f'crypttab_foreach_entry() {{ {entry}; "$@"; }}\n')
    shutil.copy2(SCRIPT, made / "local-top")
    (made / "run").mkdir()
    return made


def opens(root: Path, command_line: str, **environment: str) -> str:
    """Run the script; return the words with which it opened the volume, "" when it did not."""
    write(root, "/proc/cmdline", f"{USUAL} {command_line}\n", 0o644)
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        ["/usr/sbin/chroot", str(root), "/bin/sh", "/local-top"],
        env=path | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr if done.stderr.startswith("UUID=x|") else ""


@pytest.mark.parametrize("word", GOES_ON)
def test_the_initramfs_goes_on(root: Path, word: str) -> None:
    assert opens(root, word) == f"UUID=x|--name|my root|--volume|{UUID}|--options|luks,discard|--boot|"


@pytest.mark.parametrize("word", [*STOPS, *STOPS_THE_INITRAMFS])
def test_the_initramfs_opens_nothing(root: Path, word: str) -> None:
    assert not opens(root, word)
    assert not opens(root, f"{word} init=/sbin/init")


@pytest.mark.parametrize("word", [*GOES_ON, *STOPS])
def test_the_generator_does_the_same(tmp_path: Path, word: str) -> None:
    (tmp_path / "crypttab").write_text(f"data UUID={UUID} none luks,x-keyquorum\n")
    environment = {"SYSTEMD_CRYPTTAB": str(tmp_path / "crypttab"), "SYSTEMD_PROC_CMDLINE": f"{USUAL} {word}"}
    (tmp_path / "out").mkdir()
    subprocess.run([str(GENERATOR), str(tmp_path / "out")], env={**os.environ, **environment}, check=True, timeout=30)
    assert bool(os.listdir(tmp_path / "out")) == (word in GOES_ON)


def test_what_the_kernel_put_into_the_environment_stays_outside(root: Path) -> None:
    assert opens(root, "", KEYQUORUM_CONFIG="/dev/ttyS0", CREDENTIALS_DIRECTORY="/x", LD_LIBRARY_PATH="/x", OTHER="1")
    given = (root / "run/environment").read_text().splitlines()
    assert "OTHER=1" in given
    assert not [line for line in given if line.startswith(("KEYQUORUM_", "CREDENTIALS_", "LD_"))]
