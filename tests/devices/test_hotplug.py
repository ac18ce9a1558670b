# SPDX-License-Identifier: Apache-2.0
"""The kernel's own announcements, through pyroute2 as the daemon uses it. Needs root, to have the kernel repeat one."""

from __future__ import annotations

import glob
import os
import queue
import socket
from contextlib import ExitStack, suppress

import pytest

from keyquorum.daemon import hotplug
from keyquorum.daemon.hotplug import DEVICE, Hotplug

SECONDS = 20.0
KOBJECT_UEVENT = 15  # linux/netlink.h
pytestmark = pytest.mark.usefixtures("announcements")


def repeat(action: str, path: str) -> None:
    """Have the kernel announce a device once more (sysfs `uevent`)."""
    with open(f"{path}/uevent", "w", encoding="ascii") as file:
        file.write(action)


@pytest.fixture
def disk() -> str:
    """Some disk of this machine; nothing happens to it."""
    disks = [path for kind in ("vd", "sd", "nvme", "xvd") for path in sorted(glob.glob(f"/sys/class/block/{kind}*"))]
    assert disks, "this machine has no disk to announce"
    return disks[0]


def hears(said: queue.Queue[str], disk: str) -> str:
    """What is told of a disk that is announced again and again, beside what does not matter."""
    for _ in range(20):  # the thread needs a moment to bind
        repeat("change", disk)
        repeat("add", "/sys/class/mem/null")
        repeat("add", disk)
        try:
            return said.get(timeout=SECONDS / 20)
        except queue.Empty:
            continue
    return ""


def test_a_disk_is_heard_of_and_what_does_not_matter_is_not(disk: str) -> None:
    said: queue.Queue[str] = queue.Queue()
    listener = Hotplug(said.put)
    assert hears(said, disk) == DEVICE
    assert listener.alive
    while not said.empty():
        assert said.get_nowait() == DEVICE


def test_without_an_address_to_listen_at_it_is_tried_again(
    disk: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pyroute2 then raises KeyError, which is none of the errors that it names."""
    monkeypatch.setattr(hotplug, "_PAUSE", 0.2)
    said: queue.Queue[str] = queue.Queue()
    with ExitStack() as taken:
        for number in range(20, 200):  # those that pyroute2 tries
            one = taken.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, KOBJECT_UEVENT))
            with suppress(OSError):  # the listener of another test has it
                one.bind(((os.getpid() & 0x3FFFFF) + (number << 22), 0))
        listener = Hotplug(said.put)
        assert said.get(timeout=SECONDS) == DEVICE  # nobody knows what was missed
    assert "listening for devices was interrupted: KeyError" in capsys.readouterr().err
    with suppress(queue.Empty):  # until it tells of no interruption more
        while listener.alive:
            said.get(timeout=1.0)
    assert hears(said, disk) == DEVICE
    assert listener.alive
