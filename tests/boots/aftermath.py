# SPDX-License-Identifier: Apache-2.0
"""What a test asks of a machine after a boot: what was told, how it opened, and that nothing of the unlock stayed."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boots.enrolled import NAME, OPENED, PROMPT
from guests.luks_image import Luks
from guests.machine import BOOT_SECONDS, Machine

VALID, UNAVAILABLE, SILENT = ("valid", "unavailable", "silent")
REFUSED, TAMPERED, NOT_NEEDED = ("refused", "tampered", "not needed")
MISSING = {UNAVAILABLE, NOT_NEEDED}  # the latter when the others were quicker than the look for this one
STAYS_CLOSED = f"keyquorum: {NAME} stays closed: the quorum is not reached: "
# When udev has probed every device and the unlock is about to start.
BEFORE_UNLOCK = "Begin: Running /scripts/local-top"
_REPORT = f"/run/keyquorum/{NAME}.json"
_SECONDS_TO_LEAVE = 60.0
_CHECK_SECONDS = 120.0
_SLOW = "^(disk|the TPM) .* does not answer|among those that answer"
# The state, the name and the words of every process; a thread group in its end may have no words.
_PROCESSES = "ps -e -o stat= -o comm= -o args="


@dataclass(frozen=True)
class Told:
    """One holder's verdict, in the words of the report."""

    verdict: str
    reason: str
    hint: str


def opened_by_itself(vm: Machine) -> dict[str, Told]:
    """Wait until the volume opened from its fragments without a prompt; give each holder's verdict."""
    vm.wait_console(OPENED)
    vm.wait_agent()
    assert PROMPT not in vm.console_text()
    return _report(vm.get(_REPORT), "opened")


def opened_by_passphrase(vm: Machine, luks: Luks, first: Callable[[], object] = lambda: None) -> dict[str, Told]:
    """Wait for the prompt, and for what must come `first`, type the passphrase; give each holder's verdict."""
    vm.wait_console(re.escape(STAYS_CLOSED))
    vm.wait_console(PROMPT)
    first()
    vm.type(luks.passphrase.decode() + "\n")
    vm.wait_agent()
    return _report(vm.get(_REPORT), "failed")


def opened_late(vm: Machine) -> dict[str, Told]:
    """Wait until a holder that came while the prompt stood has opened the volume; give each holder's verdict."""
    vm.wait_agent()
    return _report(vm.get(_REPORT), "opened")


def ask_everyone(vm: Machine, luks: Luks, *, quorum: bool = True, reach: tuple[str, ...] = ()) -> dict[str, Told]:
    """What each holder answers to `keyquorum check`, which stops for nobody, and whether all that would open.

    Asks again while one of `reach` is unavailable, or anybody has not answered: a starved guest may be slower than we wait.
    """
    words = f"keyquorum check /dev/disk/by-uuid/{luks.uuid} --json --no-prompt"
    end = time.monotonic() + BOOT_SECONDS
    while True:
        done = vm.run(words, timeout=_CHECK_SECONDS, check=False)
        assert done.code in {0, 3}, done
        told = _verdicts(json.loads(done.output))
        slow = any(told[name].verdict == UNAVAILABLE for name in reach)
        if time.monotonic() > end or not (slow or any(_slow(holder) for holder in told.values())):
            break
    assert done.code == (0 if quorum else 3), told
    return _report(done.output, "quorum" if quorum else "failed")


def _slow(holder: Told) -> bool:
    """Whether nothing but time was short: a disk or TPM that is there and has not answered."""
    return holder.verdict == SILENT or re.search(_SLOW, holder.reason) is not None


def nothing_left(vm: Machine, *, but: str = "") -> None:
    """No process of the unlock runs, and none waits for a device: soon, and for good. `but` is a pattern of others."""
    end = time.monotonic() + _SECONDS_TO_LEAVE
    while left := _left(vm, but):
        assert time.monotonic() < end, "\n".join(left)
        time.sleep(1)


def _left(vm: Machine, but: str) -> list[str]:
    lines = vm.run(_PROCESSES).text.splitlines()
    return [line for line in lines if _is_unlock(line) or (line.startswith("D") and not (but and re.search(but, line)))]


def _is_unlock(line: str) -> bool:
    return "keyquorum" in line and "keyquorumd" not in line


def _report(data: bytes, outcome: str) -> dict[str, Told]:
    report = json.loads(data)
    assert report["outcome"] == outcome, report
    return _verdicts(report)


def _verdicts(report: dict[str, Any]) -> dict[str, Told]:
    return {holder["name"]: Told(holder["verdict"], holder["reason"], holder["hint"]) for holder in report["holders"]}


def wait_for_verdict(vm: Machine, name: str, verdict: str, words: str = "") -> str:
    """Wait until the console shows a holder's verdict, with these words in its line; gives the whole line."""
    # Up to its end: the console's text comes in parts.
    pattern = rf"(keyquorum:   {name} \(\w+\): {verdict}[^\n]*{re.escape(words)}[^\n]*)\n"
    return vm.wait_console(pattern, BOOT_SECONDS, from_start=True)[1]
