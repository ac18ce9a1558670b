# SPDX-License-Identifier: Apache-2.0
"""The kernel's own announcements, through pyroute2 as the daemon uses it. Needs root, to have the kernel repeat one."""

from __future__ import annotations

import glob
import queue

import pytest

from keyquorum.daemon.hotplug import DEVICE, Hotplug

SECONDS = 20.0


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


def test_a_disk_is_heard_of_and_what_does_not_matter_is_not(disk: str) -> None:
    said: queue.Queue[str] = queue.Queue()
    listener = Hotplug(said.put)
    heard = []
    for _ in range(20):  # the thread needs a moment to bind
        repeat("change", disk)
        repeat("add", "/sys/class/mem/null")
        repeat("add", disk)
        try:
            heard.append(said.get(timeout=SECONDS / 20))
            break
        except queue.Empty:
            continue
    assert heard == [DEVICE]
    assert listener.alive
    while not said.empty():
        assert said.get_nowait() == DEVICE
