# SPDX-License-Identifier: Apache-2.0
"""Which of the kernel's announcements matter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from keyquorum.daemon.hotplug import DEVICE, MAPPING, meaning


def event(action: str, subsystem: str, name: str = "", **more: str) -> dict[str, str]:
    return {"ACTION": action, "SUBSYSTEM": subsystem, "DEVNAME": name, **more}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (event("add", "block", "vdb"), DEVICE),
        (event("add", "block", "sda1", DEVTYPE="partition"), DEVICE),
        (event("change", "block", "sda", DISK_MEDIA_CHANGE="1"), DEVICE),
        (event("add", "tpmrm", "tpmrm0"), DEVICE),
        (event("add", "tpm", "tpm0"), DEVICE),
        (event("add", "usb", "bus/usb/001/004", DEVTYPE="usb_device"), DEVICE),
        (event("change", "block", "dm-0"), MAPPING),
        (event("add", "block", "dm-12"), MAPPING),
        (event("remove", "block", "dm-0"), MAPPING),
        # Whoever closes a disk after writing causes a change: it would have us chase ourselves.
        (event("change", "block", "vdb"), ""),
        (event("remove", "block", "vdb"), ""),
        (event("add", "block", "loop0"), ""),
        (event("add", "block", "zram0"), ""),
        (event("add", "usb", "", DEVTYPE="usb_interface"), ""),
        (event("bind", "usb", "bus/usb/001/004", DEVTYPE="usb_device"), ""),
        (event("add", "net", "eth0"), ""),
        ({}, ""),
    ],
)
def test_meaning(said: dict[str, str], expected: str) -> None:
    assert meaning(said) == expected


def test_only_the_netlink_part_of_pyroute2_is_loaded() -> None:
    program = "import json, sys, keyquorum.daemon.hotplug; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    loaded = json.loads(done.stdout)
    assert "pyroute2.netlink.uevent" in loaded
    assert not {"pyroute2.iproute", "pyroute2.ndb", "pyroute2.netlink.rtnl"} & set(loaded)
