# SPDX-License-Identifier: Apache-2.0
"""The network of an initramfs: used when there, brought up when not, waited for no longer than one's patience."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keyquorum.errors import UnavailableError
from keyquorum.linux import boot_network, boot_record
from keyquorum.linux.tls_connection import Patience

AGENT = Path(__file__).resolve().parents[3] / "agent"
HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
ROUTE = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
DOWN = "eth0\t00000000\t0102A8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
LOOPBACK = "00000000000000000000000000000001 01 80 10 80       lo\n"
LINK = "fe800000000000005054000012340056 02 40 20 80     eth0\n"
GLOBAL = "20010db8000000000000000000000007 02 40 00 80     eth0\n"
UNTIL_TOLD = "until [ -e told ]; do sleep 0.05; done\n"


class Initramfs:
    """A machine whose kernel says what a test writes, and whose script is the test's."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory, self.said = directory, list[str]()
        self.network("", "")
        for name, file in (
            ("_IPV4_ROUTES", "route"),
            ("_IPV6_ADDRESSES", "inet6"),
            ("SCRIPT", "network-up"),
            ("LOCK", "lock"),
        ):
            patch.setattr(boot_network, name, str(directory / file))
        patch.setattr(boot_record, "to_kernel_log", self.said.append)

    def network(self, routes: str, addresses: str) -> None:
        (self.directory / "route").write_text(HEAD + routes)
        (self.directory / "inet6").write_text(addresses)

    def script(self, text: str) -> None:
        path = self.directory / "network-up"
        path.write_text(f"#!/bin/sh\ncd {self.directory}\n{text}\n")
        path.chmod(0o755)

    def tell(self) -> None:
        """Let a script go on that waits `UNTIL_TOLD`."""
        (self.directory / "told").touch()

    def wait_until_ended(self) -> None:
        """Return when nobody brings the network up any more."""
        with (self.directory / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    def runs(self) -> int:
        """How often the script ran."""
        path = self.directory / "ran"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_for_runs(self, number: int) -> None:
        """Return when the script ran so often."""
        end = time.monotonic() + 30
        while self.runs() < number:
            assert time.monotonic() < end, "the script did not run"
            time.sleep(0.02)


@pytest.fixture
def initramfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Initramfs:
    return Initramfs(tmp_path, monkeypatch)


def soon(seconds: float = 20.0, cancel: int = -1) -> Patience:
    return Patience(deadline=time.monotonic() + seconds, cancel=cancel)


@pytest.mark.parametrize(
    ("routes", "addresses", "up"),
    [
        ("", "", False),
        ("", LOOPBACK + LINK, False),
        (DOWN, LOOPBACK, False),
        (ROUTE, "", True),
        ("", LOOPBACK + LINK + GLOBAL, True),
    ],
)
def test_what_counts_as_a_network(initramfs: Initramfs, routes: str, addresses: str, up: bool) -> None:
    initramfs.network(routes, addresses)
    assert boot_network.configured() == up


def test_a_running_system_is_left_alone(initramfs: Initramfs) -> None:
    boot_network.ensure(soon())
    assert not (initramfs.directory / "lock").exists()


def test_a_network_that_is_there_is_used(initramfs: Initramfs) -> None:
    initramfs.script("echo x >>ran")
    initramfs.network(ROUTE, "")
    boot_network.ensure(soon())
    assert initramfs.runs() == 0


def test_it_is_brought_up_once_for_several_who_ask(initramfs: Initramfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IP", "dhcp")
    monkeypatch.setenv("SECRET", "not for scripts")
    initramfs.script(f'echo x >>ran\necho "$IP $SECRET" >seen\nsleep 0.3\nprintf "{HEAD}{ROUTE}" >route')
    threads = [threading.Thread(target=boot_network.ensure, args=(soon(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert boot_network.configured()
    assert initramfs.runs() == 1
    assert (initramfs.directory / "seen").read_text() == "dhcp \n"


def test_who_gets_the_lock_once_it_is_up_starts_nothing(initramfs: Initramfs, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def meanwhile(descriptor: int, operation: int) -> None:
        initramfs.network(ROUTE, "")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    initramfs.script("echo x >>ran")
    boot_network.ensure(soon())
    initramfs.wait_until_ended()
    assert initramfs.runs() == 0


def test_an_advertisement_is_enough_while_dhcp_still_asks(initramfs: Initramfs) -> None:
    initramfs.script(f'printf "{GLOBAL}" >inet6\n{UNTIL_TOLD}echo x >>ran')
    boot_network.ensure(soon())
    assert initramfs.runs() == 0, "the script still runs"
    initramfs.tell()
    initramfs.wait_for_runs(1)


def test_no_network_ends_at_the_deadline_and_the_next_one_does_not_begin_anew(initramfs: Initramfs) -> None:
    initramfs.script(f"echo x >>ran\n{UNTIL_TOLD}")
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the network is not up yet"):
            boot_network.ensure(soon(0.4))
        initramfs.wait_for_runs(1)
    initramfs.tell()
    initramfs.wait_until_ended()
    assert initramfs.runs() == 1


def test_waiting_can_be_called_off(initramfs: Initramfs) -> None:
    initramfs.script("echo x >>ran\nsleep 1")
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(UnavailableError, match="called off"):
        boot_network.ensure(soon(60, reading))
    os.close(reading)
    initramfs.wait_for_runs(1)  # or the thread would begin in the next test, and run that one's script


def test_a_script_that_fails_is_in_the_kernel_log(initramfs: Initramfs) -> None:
    initramfs.script("echo no interface >&2\nexit 3")
    with pytest.raises(UnavailableError):
        boot_network.ensure(soon(0.5))
    end = time.monotonic() + 10
    while not initramfs.said and time.monotonic() < end:
        time.sleep(0.02)
    assert initramfs.said == ["the network did not come up: exit status 3 no interface"]


FALLS_BACK = """
import os, sys, time
from keyquorum.errors import UnavailableError
from keyquorum.linux import boot_network
from keyquorum.linux.tls_connection import Patience

folder = sys.argv[1]
boot_network._IPV4_ROUTES, boot_network._IPV6_ADDRESSES = folder + "/route", folder + "/inet6"
boot_network.SCRIPT, boot_network.LOCK = folder + "/network-up", folder + "/lock"
boot_network.boot_record.to_kernel_log = str


def ask():
    try:
        boot_network.ensure(Patience(deadline=time.monotonic() + 0.5))
    except UnavailableError:
        return


for _ in range(int(sys.argv[2])):
    ask()
os._exit(0)
"""


def test_the_process_that_lingers_may_bring_it_up_again(initramfs: Initramfs) -> None:
    """The script was begun beside a question to a person; then the boot fell back to the prompt, and its parent ended."""
    initramfs.script("echo x >>ran\nsleep 1")
    for questions in ("1", "10"):
        subprocess.run(
            [sys.executable, "-c", FALLS_BACK, str(initramfs.directory), questions],
            env={"PYTHONPATH": str(AGENT), "PATH": os.environ["PATH"]},
            check=True,
            timeout=60,
        )
    initramfs.wait_for_runs(2)


def test_it_is_begun_without_waiting(initramfs: Initramfs) -> None:
    initramfs.script("echo x >>ran\nsleep 0.3")
    boot_network.begin()
    assert not boot_network.configured()
    initramfs.wait_for_runs(1)


def test_it_is_begun_only_where_it_is_ours_and_down(initramfs: Initramfs) -> None:
    boot_network.begin()
    initramfs.script("echo x >>ran")
    initramfs.network(ROUTE, "")
    boot_network.begin()
    assert not (initramfs.directory / "lock").exists()


def test_what_needs_no_network_is_not_told_that_it_cannot_be_begun(
    initramfs: Initramfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    initramfs.script("echo x >>ran")
    monkeypatch.setattr(boot_network, "LOCK", str(initramfs.directory / "nowhere" / "lock"))
    boot_network.begin()
    (line,) = initramfs.said
    assert line.startswith("the network is not brought up: ")
