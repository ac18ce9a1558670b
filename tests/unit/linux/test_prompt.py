# SPDX-License-Identifier: Apache-2.0
"""Asking a person, on real pseudo-terminals, the real askpass and the real systemd-ask-password."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyquorum.linux import prompt

_CHILD = """
import os, sys
os.open(sys.argv[1], os.O_RDWR)  # a session leader's first terminal becomes its controlling one
from keyquorum.linux import prompt
def show(answer):
    print(None if answer is None else bytes(answer.view), flush=True)
"""
_ASK = "show(prompt.terminal('PIN of token', float(sys.argv[2])))"


class Console:
    """A terminal with a person at the other end, and a program on it."""

    def __init__(self, program: str = _ASK, seconds: float = 20, *wrapper: str) -> None:
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", _CHILD + program, self.name, str(seconds)],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.slave, self.seen = slave, b""

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def see(self, text: bytes, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.master, 4096)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def result(self, seconds: float = 15) -> str:
        output, _ = self.process.communicate(timeout=seconds)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 4096)
        return str(output.decode().strip())

    def hang_up(self) -> None:
        for descriptor in (self.slave, self.master):
            if descriptor >= 0:
                os.close(descriptor)
        self.master = self.slave = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.hang_up()


@pytest.fixture
def console() -> Iterator[Callable[..., Console]]:
    opened: list[Console] = []

    def start(*arguments: object) -> Console:
        opened.append(Console(*arguments))  # type: ignore[arg-type]  # passed on as they are
        return opened[-1]

    yield start
    for one in opened:
        one.close()


Start = Callable[..., Console]


def test_typed_on_a_terminal_without_echo(console: Start) -> None:
    person = console()
    assert person.echoes()
    person.see(b"PIN of token: ")
    assert not person.echoes()
    person.type(b"hunter2\n")
    assert person.result() == "b'hunter2'"
    assert b"hunter2" not in person.seen
    assert person.echoes()


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (b"abc\x7f\x7fd\r", "b'ad'"),
        (b"ab\x08c\n", "b'ac'"),
        ("aöü".encode() + b"\x7f\x7fx\n", "b'ax'"),
        (b"\x7f\x7fa\n", "b'a'"),
        (b"wrong\x15right\n", "b'right'"),
        (b"a\tb\x01\x1bc\n", "b'a\\tbc'"),
        (b"end of file\x04", "b'end of file'"),
        (b"x" * 5000 + b"\n", f"b'{'x' * 4096}'"),
        (b"\n", "None"),
        (b"\x04", "None"),
        (b"abc\x03", "None"),
        (b"abc\x7f\x7f\x7f\n", "None"),
    ],
)
def test_keys(console: Start, keys: bytes, answer: str) -> None:
    person = console()
    person.see(b"PIN of token: ")
    for start in range(0, len(keys), 1000):
        person.type(keys[start : start + 1000])
        time.sleep(0.05)
    assert person.result() == answer
    assert person.echoes()


def test_lines_pasted_at_once_answer_one_question_each(console: Start) -> None:
    person = console("for number in '12': show(prompt.terminal('line ' + number, 20))")
    person.see(b"line 1: ")
    person.type(b"first\nsecond\n")
    assert person.result() == "b'first'\nb'second'"


def test_time_out(console: Start) -> None:
    person = console(_ASK, 0.3)
    assert person.result() == "None"
    assert person.echoes()


def test_hang_up(console: Start) -> None:
    person = console("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); " + _ASK)
    person.see(b"PIN of token: ")
    person.hang_up()
    assert person.process.communicate(timeout=15)[0] == b"None\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_fatal_signal_restores_the_echo(console: Start, number: int) -> None:
    person = console()
    person.see(b"PIN of token: ")
    assert not person.echoes()
    person.process.send_signal(number)
    person.result()
    assert person.process.returncode == -number
    assert person.echoes()


def test_an_interrupt_from_elsewhere_restores_the_echo(console: Start) -> None:
    person = console(f"try:\n    {_ASK}\nexcept KeyboardInterrupt:\n    print('interrupted')")
    person.see(b"PIN of token: ")
    person.process.send_signal(signal.SIGINT)
    assert person.result() == "interrupted"
    assert person.echoes()


def test_an_ignored_signal_stays_ignored(console: Start) -> None:
    person = console("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _ASK)
    person.see(b"PIN of token: ")
    person.process.terminate()
    person.type(b"still here\n")
    assert person.result() == "b'still here'"


def test_a_program_that_ends_while_another_thread_asks(console: Start) -> None:
    person = console(
        "import signal, threading, time\n"
        "def end(*_):\n"
        "    prompt.restore_terminals()\n"
        "    os._exit(3)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "threading.Thread(target=lambda: prompt.terminal('PIN', 60), daemon=True).start()\n"
        "while True: time.sleep(1)\n"
    )
    person.see(b"PIN: ")
    assert not person.echoes()
    person.process.terminate()
    person.result()
    assert person.process.returncode == 3
    assert person.echoes()


def test_called_off(console: Start) -> None:
    person = console("r, w = os.pipe(); os.write(w, b'x'); show(prompt.terminal('PIN', 60, r))")
    assert person.result() == "None"
    assert person.echoes()


def test_a_program_in_the_background_is_not_stopped(console: Start) -> None:
    person = console(
        "if os.fork() == 0:\n    os.setpgid(0, 0)\n    show(prompt.terminal('PIN', 5))\n    os._exit(0)\nos.wait()\n"
    )
    assert person.result() == "None"


def test_nobody_is_there() -> None:
    script = "from keyquorum.linux import prompt; print(prompt.terminal('PIN', 5))"
    done = subprocess.run([sys.executable, "-c", script], start_new_session=True, capture_output=True, check=True)
    assert done.stdout == b"None\n"


def test_a_question_cannot_steer_the_terminal(console: Start) -> None:
    person = console("show(prompt.terminal('token \\x1b[2J\\x07\\u202e' + 'x' * 500, 20))")
    person.see(b"token ?[2J??xxx")
    person.type(b"a\n")
    person.result()
    assert b"\x1b" not in person.seen
    assert len(person.seen) < 250


def test_choice(console: Start, tmp_path: Path) -> None:
    person = console("print(prompt.choose().__name__)")
    assert person.result() == "terminal"
    script = (
        "import sys; from keyquorum.linux import prompt\n"
        "prompt._SYSTEMD_RUNS, prompt.ASKPASS = sys.argv[1:3]\n"
        "print(getattr(prompt.choose(), '__name__', None))"
    )
    here, away = str(tmp_path), str(tmp_path / "away")
    for systemd, askpass, chosen in ((here, "/bin/sh", "agent"), (away, "/bin/sh", "askpass"), (away, away, "None")):
        done = subprocess.run(
            [sys.executable, "-c", script, systemd, askpass], start_new_session=True, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == chosen


def test_password_agents_of_systemd() -> None:
    """Real systemd-ask-password; the test is the agent (systemd's PASSWORD_AGENTS.md)."""
    script = "from keyquorum.linux import prompt; a = prompt.agent('PIN of token', 20, -1); print(bytes(a.view))"
    directory = Path("/run/systemd/ask-password")
    before = set(directory.glob("ask.*"))
    asking = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 15
    while not (new := set(directory.glob("ask.*")) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    question = dict(line.split("=", 1) for line in new.pop().read_text().splitlines() if "=" in line)
    assert (question["Message"], question["Id"]) == ("PIN of token:", "keyquorum")
    assert question["Echo"] == "0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reply:
        reply.sendto(b"+typed elsewhere", question["Socket"])
    assert asking.communicate(timeout=15)[0] == b"b'typed elsewhere\\n'\n"


def test_agents_that_do_not_answer() -> None:
    started = time.monotonic()
    assert prompt.agent("PIN of token", 0.5, -1) is None
    assert time.monotonic() - started < 15


_NAMESPACE = """
cp /lib/cryptsetup/askpass "$1" && mount --make-rprivate / && mount -t tmpfs none /sys/fs/cgroup &&
mount --bind "$2" /dev/console && mount --bind "$1" /lib/cryptsetup && shift 2 && exec "$@"
"""


@pytest.fixture
def initramfs(tmp_path: Path) -> Iterator[Callable[[float], Console]]:
    """The real askpass of cryptsetup-initramfs, with a pseudo-terminal as /dev/console and no systemd."""
    opened = []

    def start(seconds: float) -> Console:
        person = Console("", 0)
        person.process.communicate()
        script = f"from keyquorum.linux import prompt; a = prompt.askpass('PIN of token', {seconds})\n"
        script += "print(None if a is None else bytes(a.view))"
        person.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-ec", _NAMESPACE, "sh", tmp_path, person.name, sys.executable, "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        opened.append(person)
        return person

    yield start
    for person in opened:
        person.close()


@pytest.mark.usefixtures("console_level")
def test_console_of_an_initramfs(initramfs: Callable[[float], Console]) -> None:
    person = initramfs(20)
    person.see(b"PIN of token: ")
    assert not person.echoes()
    person.type(b"hunter2\n")
    assert person.result() == "b'hunter2'"
    assert b"hunter2" not in person.seen
    assert person.echoes()


@pytest.mark.usefixtures("console_level")
def test_console_is_as_before_when_nobody_types(initramfs: Callable[[float], Console]) -> None:
    levels = Path("/proc/sys/kernel/printk").read_bytes()
    person = initramfs(4)
    person.see(b"PIN of token: ")
    assert not person.echoes()
    assert person.result() == "None"
    assert person.echoes()
    assert Path("/proc/sys/kernel/printk").read_bytes() == levels
