# SPDX-License-Identifier: Apache-2.0
"""What a boot must not leave behind in the system that it started (I1, I4; docs/boot.md §8)."""

import json
import re
from typing import Any

from boots.aftermath import nothing_left
from guests.machine import Machine

_OF_THE_PROMPT = re.compile(r"/askpass|/sbin/cryptsetup|/scripts/local-")


def report(vm: Machine, name: str) -> dict[str, Any]:
    """The report that the boot kept about a volume."""
    found: dict[str, Any] = json.loads(vm.get(f"/run/keyquorum/{name}.json"))
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """Each holder's verdict in a report."""
    return {holder["name"]: holder["verdict"] for holder in found["holders"]}


def assert_nothing_left(vm: Machine) -> None:
    """No process, key, mount or note of ours, and kernel messages reach the console as before."""
    nothing_left(vm)
    waiting = [line for line in vm.run("ps -eo args").text.splitlines() if _OF_THE_PROMPT.search(line)]
    assert not waiting, waiting
    keys = vm.run("cat /proc/keys").text
    assert not re.search(r"logon|cryptsetup|keyquorum", keys), keys
    mounts = vm.run("cat /proc/mounts").text
    assert "keyquorum" not in mounts, mounts
    notes = vm.run("find /run/keyquorum -name '*.pid' -o -name '*.json.*'", check=False).text
    assert not notes, notes
    shown, _, least, _ = (int(level) for level in vm.run("cat /proc/sys/kernel/printk").text.split())
    assert shown > least, "askpass left kernel messages off the console"
