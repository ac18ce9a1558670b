# SPDX-License-Identifier: Apache-2.0
"""Taking back a prompt: real processes end, those of other mappings and everybody else's stay."""

from __future__ import annotations

import os
import select
import subprocess
import termios
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
        self.fifo, self.console = str(proc / "passfifo"), str(proc / "no console")
        self.children: list[subprocess.Popen[bytes]] = []
        (proc / "1").mkdir()
        (proc / "sys").mkdir()

    def withdraw(self, name: str) -> None:
        prompt_withdrawal.withdraw(name, str(self.proc), self.fifo, self.console)

    def wait_until_deaf(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until a `DEAF` child sleeps, be it for an answer."""
        end = time.monotonic() + 20
        while not (os.path.exists(f"{self.fifo} deaf") and _state(child.pid) == "S"):
            assert time.monotonic() < end
            time.sleep(0.01)

    def start(self, cmdline: str, environ: str, program: str = "exec sleep 300") -> subprocess.Popen[bytes]:
        """A process that looks like `cmdline` and is `program`, whose first word $0 is the fifo."""
        child = subprocess.Popen(["sh", "-c", program, self.fifo])
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
    return child.wait(20) == -15


def stays(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(0.3)
    except subprocess.TimeoutExpired:
        return True
    return False


def test_the_script_and_what_it_waits_for_end(initramfs: Initramfs) -> None:
    script = initramfs.start("/bin/sh /scripts/local-top/cryptroot", "PATH=/bin")
    asking = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=root CRYPTTAB_SOURCE=/dev/vda2")
    other = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=rootbackup")
    stranger = initramfs.start("/bin/sh /scripts/local-top/lvm2", "X=CRYPTTAB_NAME=root")
    initramfs.withdraw("root")
    assert (ended(script), ended(asking), stays(other), stays(stranger)) == (True, True, True, True)


DEAF = "trap '' TERM; : >\"$0 deaf\"; "  # as askpass(8) of cryptsetup-initramfs is


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is to end by itself is not killed, however busy the machine."""
    monkeypatch.setattr(prompt_withdrawal, "_PATIENCE", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_question_that_blocks_the_signal_is_answered(initramfs: Initramfs) -> None:
    """It ends by itself then, which is how it puts the console back."""
    os.mkfifo(initramfs.fifo)
    script = initramfs.start("/bin/sh /scripts/local-top/cryptroot", "PATH=/bin")
    asking = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=root", DEAF + 'read answer <"$0"; exit 7')
    reader = initramfs.start("/sbin/cryptsetup open", "CRYPTTAB_NAME=root")
    initramfs.wait_until_deaf(asking)
    initramfs.withdraw("root")
    assert (asking.wait(20), ended(reader), ended(script)) == (7, True, True)


@pytest.mark.usefixtures("patient")
def test_the_script_stands_still_while_the_question_ends(initramfs: Initramfs) -> None:
    """Else it asks again, or the boot runs on and ends us before the console has its echo back."""
    os.mkfifo(initramfs.fifo)
    mark = initramfs.proc / "asked again"
    again = f"until grep -q '^State:.Z' /proc/$1/status; do :; done; touch '{mark}'; exec sleep 300"
    asking = initramfs.start("/lib/cryptsetup/askpass x", "CRYPTTAB_NAME=root", DEAF + 'read a <"$0"; sleep 0.3')
    reader = initramfs.start("/sbin/cryptsetup open", "CRYPTTAB_NAME=root")
    script = initramfs.start("/bin/sh /scripts/local-top/cryptroot", "", again.replace("$1", str(reader.pid)))
    initramfs.wait_until_deaf(asking)
    initramfs.withdraw("root")
    assert (asking.wait(20), ended(reader), ended(script)) == (0, True, True)
    assert not mark.exists()


def test_what_the_script_starts_before_it_stands_still_ends_too(
    initramfs: Initramfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = initramfs.start("/lib/cryptsetup/askpass Please", "CRYPTTAB_NAME=root")
    late: list[subprocess.Popen[bytes]] = []

    def meanwhile(_message: str) -> None:
        late.append(initramfs.start("/sbin/cryptsetup open", "CRYPTTAB_NAME=root"))

    monkeypatch.setattr("keyquorum.linux.boot_record.to_kernel_log", meanwhile)
    initramfs.withdraw("root")
    assert (ended(asking), ended(late[0])) == (True, True)


def test_a_question_that_takes_no_answer_is_killed_and_the_terminal_echoes_again(initramfs: Initramfs) -> None:
    keyboard, terminal = os.openpty()
    initramfs.console = os.ttyname(terminal)
    flags = termios.ECHO | termios.ICANON | termios.ISIG
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~flags
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    asking = initramfs.start("/lib/cryptsetup/askpass x", "CRYPTTAB_NAME=root", DEAF + "while :; do sleep 1; done")
    initramfs.wait_until_deaf(asking)
    initramfs.withdraw("root")
    assert asking.wait(20) == -9
    assert termios.tcgetattr(terminal)[3] & flags == flags
    os.close(keyboard)
    os.close(terminal)


def test_nobody_asks(initramfs: Initramfs) -> None:
    script = initramfs.start("/bin/sh /scripts/local-block/cryptroot", "PATH=/bin")
    started = time.monotonic()
    initramfs.withdraw("root")
    assert stays(script), "it may be about to do something useful"
    assert time.monotonic() - started < 5


def test_who_is_gone_already(initramfs: Initramfs) -> None:
    gone = initramfs.start("/lib/cryptsetup/askpass x", "CRYPTTAB_NAME=root")
    gone.kill()
    gone.wait()
    initramfs.withdraw("root")


def test_our_own_process_is_not_ended(initramfs: Initramfs) -> None:
    own = initramfs.proc / str(os.getpid())
    own.mkdir()
    (own / "environ").write_bytes(b"CRYPTTAB_NAME=root\0")
    (own / "cmdline").write_bytes(b"keyquorum-unlock\0")
    initramfs.withdraw("root")


# What cryptroot does: asks through the real askpass, which finds a console and a directory for its fifo, three times.
_CRYPTROOT = """
cp /lib/cryptsetup/askpass "$1" && mount --make-rprivate / && mount -t tmpfs none /sys/fs/cgroup &&
mount --bind "$2" /dev/console && mount --bind "$1" /lib/cryptsetup
export CRYPTTAB_NAME="$3"
exec sh -c 'for try in 1 2 3; do /lib/cryptsetup/askpass "Please unlock: " | cat >/dev/null; done' "$4"
"""


@pytest.mark.usefixtures("console_level", "patient")
def test_the_real_askpass_gives_the_console_back(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    name, levels = f"test-{os.getpid()}", _kernel_messages()
    before = termios.tcgetattr(terminal)
    argv = ["sh", "-ec", _CRYPTROOT, "sh", str(tmp_path), os.ttyname(terminal), name, "/scripts/local-top/cryptroot"]
    script = subprocess.Popen(["unshare", "-m", *argv], stdin=terminal, stdout=terminal, stderr=terminal)
    try:
        seen = b""
        while b"Please unlock: " not in seen:
            assert select.select([keyboard], [], [], 20)[0], seen
            seen += os.read(keyboard, 4096)
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        prompt_withdrawal.withdraw(name, fifo=str(tmp_path / "passfifo"), console=os.ttyname(terminal))
        assert script.wait(20) == -15
        assert termios.tcgetattr(terminal) == before
        assert _kernel_messages() == levels
        wait_until_nobody_asks(name)
        seen = os.read(keyboard, 4096) if select.select([keyboard], [], [], 0)[0] else b""
        assert b"Please" not in seen
    finally:
        script.kill()
        script.wait()
        os.close(keyboard)
        os.close(terminal)


def wait_until_nobody_asks(name: str) -> None:
    """What the script had forked when it was ended goes when it is next scheduled."""
    end = time.monotonic() + 20
    while left := [pid for pid in _numbers() if name.encode() in _environment(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


def _kernel_messages() -> bytes:
    with open("/proc/sys/kernel/printk", "rb") as file:
        return file.read()


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


def _numbers() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""
