# SPDX-License-Identifier: Apache-2.0
"""keyquorumd as a process: what its manager hears, signals, the watchdog, an end without leftovers.

What it does for volumes needs systemd and is tested in guests (tests/boots/test_data_volumes.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60.0


class Daemon:
    """The process, and the manager's end of its notifications."""

    def __init__(self, directory: Path, watchdog: float) -> None:
        path = str(directory / "notify")
        self.heard: list[str] = []
        self.errors = str(directory / "errors")
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(path)
        self._manager.settimeout(SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(watchdog * 1e6))}
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keyquorum.daemon.main"], env=environment, stderr=errors
            )

    def wait_for(self, state: str) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            said = self._manager.recv(4096).decode()
            self.heard.append(said)
            if said.split("\n")[0] == state:
                return
        raise AssertionError(f"{state} was not heard, only {self.heard}")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        self._manager.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path, watchdog=3600.0)
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(made.end)
        yield made


def test_ready_reload_stop(daemon: Daemon) -> None:
    daemon.wait_for("READY=1")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("RELOADING=1")
    daemon.wait_for("READY=1")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("STOPPING=1")
    assert daemon.process.wait(SECONDS) == 0


@pytest.mark.usefixtures("announcements")
def test_it_sleeps(daemon: Daemon) -> None:
    """No wake-ups of its own: a second of its life costs no measurable time."""
    daemon.wait_for("READY=1")
    daemon.wait_for("WATCHDOG=1")
    time.sleep(2.0)
    used = cpu_ticks(daemon.process.pid)
    time.sleep(3.0)
    assert cpu_ticks(daemon.process.pid) - used <= 2


def test_the_watchdog_hears_it_in_time(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, watchdog=1.0)
    try:
        daemon.wait_for("READY=1")
        started = time.monotonic()
        for _ in range(8):
            daemon.wait_for("WATCHDOG=1")
        assert 2.0 < time.monotonic() - started < 30.0
    finally:
        daemon.end()


def test_it_holds_no_secret_and_says_so_by_what_it_does_not_import() -> None:
    program = (
        "import sys, keyquorum.daemon.main\n"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('cryptography', 'tpm2_pytss', 'pkcs11')"
        " or m.startswith(('keyquorum.unlock', 'keyquorum.holders', 'keyquorum.envelope', 'keyquorum.sharing',"
        " 'keyquorum.tpm2', 'keyquorum.native.crypto', 'keyquorum.native.sodium', 'keyquorum.linux.cryptsetup'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=SECONDS)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("start", 2)])
def test_words(word: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyquorum.daemon.main", word], stdout=subprocess.PIPE, check=False, timeout=SECONDS
    )
    assert done.returncode == code
    assert b"usage: keyquorumd" in done.stdout


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
