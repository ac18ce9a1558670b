# SPDX-License-Identifier: Apache-2.0
"""Taking back the initramfs' passphrase prompt once the volume is open (docs/boot.md §9).

Debian's cryptroot script waits in `askpass | cryptsetup open` and would ask again after every failure. It skips a
mapping that exists only before it asks, so it is ended: the boot goes on with the next script, and local-block runs
cryptroot again should any other volume still be missing.
"""

from __future__ import annotations

import os
import time

from keyquorum.linux import boot_record

_SCRIPTS = (b"/scripts/local-top/cryptroot", b"/scripts/local-block/cryptroot")
_ASKPASS = b"/lib/cryptsetup/askpass"
_SIGTERM = 15
_SETTLE = 0.2


def withdraw(name: str, proc: str = "/proc") -> None:
    """End the prompt for mapping `name`: first the script, so that it does not ask again, then what it waits for."""
    wanted = b"CRYPTTAB_NAME=" + os.fsencode(name)
    asking = [pid for pid in _processes(proc) if wanted in _strings(proc, pid, "environ")]
    if not asking:
        return
    boot_record.to_kernel_log(f"withdrawing the passphrase prompt for {name}")
    scripts = [pid for pid in _processes(proc) if any(script in _strings(proc, pid, "cmdline") for script in _SCRIPTS)]
    for pid in scripts:
        _end(pid)
    time.sleep(_SETTLE)  # the shell takes the signal when its pipeline does
    for pid in asking:
        _end(pid)


def _processes(proc: str) -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdigit() and int(name) not in {1, os.getpid()}]


def _strings(proc: str, pid: int, what: str) -> list[bytes]:
    try:
        with open(f"{proc}/{pid}/{what}", "rb") as file:
            return file.read(1 << 16).split(b"\0")
    except OSError:  # it ended meanwhile
        return []


def _end(pid: int) -> None:
    try:
        os.kill(pid, _SIGTERM)
    except ProcessLookupError:
        return
