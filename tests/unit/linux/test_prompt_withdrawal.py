# SPDX-License-Identifier: Apache-2.0
"""Taking back a prompt: real processes end, those of other mappings and everybody else's stay."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from keyquorum.linux import prompt_withdrawal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Initramfs:
    """A /proc with the processes of a test, each a real `sleep` that can be ended."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.children: list[subprocess.Popen[bytes]] = []
        (proc / "1").mkdir()
        (proc / "sys").mkdir()

    def start(self, cmdline: str, environ: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["sleep", "300"])
        self.children.append(child)
        directory = self.proc / str(child.pid)
        directory.mkdir()
        (directory / "cmdline").write_bytes(cmdline.replace(" ", "\0").encode() + b"\0")
        (directory / "environ").write_bytes(environ.replace(" ", "\0").encode() + b"\0")
        return child


@pytest.fixture
def initramfs(tmp_path: Path) -> Iterator[Initramfs]:
    made = Initramfs(tmp_path)
    yield made
    for child in made.children:
        child.kill()
        child.wait()


def ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        return child.wait(0.3) == -15
    except subprocess.TimeoutExpired:
        return False


def test_the_script_and_what_it_waits_for_end(initramfs: Initramfs) -> None:
    script = initramfs.start("/bin/sh /scripts/local-top/cryptroot", "PATH=/bin")
    asking = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=root CRYPTTAB_SOURCE=/dev/vda2")
    other = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=rootbackup")
    stranger = initramfs.start("/bin/sh /scripts/local-top/lvm2", "X=CRYPTTAB_NAME=root")
    prompt_withdrawal.withdraw("root", str(initramfs.proc))
    assert (ended(script), ended(asking), ended(other), ended(stranger)) == (True, True, False, False)


def test_nobody_asks(initramfs: Initramfs) -> None:
    script = initramfs.start("/bin/sh /scripts/local-block/cryptroot", "PATH=/bin")
    started = time.monotonic()
    prompt_withdrawal.withdraw("root", str(initramfs.proc))
    assert not ended(script), "it may be about to do something useful"
    assert time.monotonic() - started < 5


def test_who_is_gone_already(initramfs: Initramfs) -> None:
    gone = initramfs.start("/lib/cryptsetup/askpass x", "CRYPTTAB_NAME=root")
    gone.kill()
    gone.wait()
    prompt_withdrawal.withdraw("root", str(initramfs.proc))


def test_our_own_process_is_not_ended(initramfs: Initramfs) -> None:
    own = initramfs.proc / str(os.getpid())
    own.mkdir()
    (own / "environ").write_bytes(b"CRYPTTAB_NAME=root\0")
    (own / "cmdline").write_bytes(b"keyquorum-unlock\0")
    prompt_withdrawal.withdraw("root", str(initramfs.proc))
