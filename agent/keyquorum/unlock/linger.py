# SPDX-License-Identifier: Apache-2.0
"""After the fall back to the prompt: keep watching, open the volume if its holders come (I3, I4; docs/boot.md §9).

The prompt is never delayed by this. The process holds no secret while it waits; it ends when the volume is open,
whoever opened it, and the boot's local-bottom script ends it at the latest.
"""

from __future__ import annotations

import os
import time

from keyquorum import process
from keyquorum.linux import boot_record, cryptsetup, prompt_withdrawal
from keyquorum.linux.uevents import DeviceEvents
from keyquorum.unlock.telling import Lingering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.unlock.proxy import Proxy

PID_FILES = "/run/keyquorum"
_LOOK_AGAIN = 5.0  # seconds between looks whether somebody opened the volume
_SELDOM = 30.0  # at most between attempts that no device asked for: a module that hangs keeps a thread of each
_PATIENT = 6.0  # times `holder_timeout` that a holder gets at most: nobody waits here, and a slow one may need it
_AT_MOST = 24 * 3600.0


def linger(proxy: Proxy, *, at_once: bool = False) -> None:
    """Watch, in a process of our own, until the volume is open or a day has passed.

    With `at_once` it does not wait for a device first: custodians are still to be asked.
    """
    noted = f"{PID_FILES}/{proxy.arguments.name}.pid"
    _keep_pid(noted)
    try:
        _watch(proxy, at_once=at_once)
    finally:
        _drop_pid(noted)


def _watch(proxy: Proxy, *, at_once: bool = False) -> None:
    quiet = proxy.with_(
        arguments=proxy.arguments.with_(prompt=False),
        context=proxy.context.with_(tell=Lingering().verdict),
        wait_for_custodians=True,
    )
    events, end = DeviceEvents(), time.monotonic() + _AT_MOST
    name, delay, patience = proxy.arguments.name, _LOOK_AGAIN, 1.0
    due = time.monotonic() + delay
    while time.monotonic() < end:
        came, at_once = at_once or events.wait(_LOOK_AGAIN), False
        if cryptsetup.is_active(name):
            return
        if not came and time.monotonic() < due:
            continue
        patience = min(patience * 2, _PATIENT)
        opened = _attempt(quiet, patience)
        delay = _LOOK_AGAIN if came else min(delay * 2, _SELDOM)
        due = time.monotonic() + delay
        if opened:
            return


def _attempt(proxy: Proxy, patience: float) -> bool:
    """Try to open the volume; say whether that was done. A fault of one attempt is not the end of the watch."""
    name, seconds = proxy.arguments.name, proxy.settings.holder_timeout
    try:
        report = proxy.with_(settings=proxy.settings.with_(holder_timeout=seconds * patience)).unlock()
    except Exception as error:  # noqa: BLE001 (the edge of a process that nobody starts again: the next attempt may do)
        boot_record.to_kernel_log(f"an attempt to open {name} ended early: {process.fault(error)}")
        return False
    if report.outcome != "opened":
        return False
    boot_record.to_kernel_log(f"{name} was opened by a holder that came late")
    boot_record.keep_report(report)
    prompt_withdrawal.withdraw(name)
    return True


def _keep_pid(path: str) -> None:
    """Note the process for the script that ends it before the real system starts."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.write(descriptor, b"%d\n" % os.getpid())
        os.close(descriptor)
    except OSError as error:
        boot_record.to_kernel_log(f"the watching process cannot be noted: {error.strerror}")


def _drop_pid(path: str) -> None:
    """Remove the note: the number may be another process's by the time the script reads it."""
    try:
        os.unlink(path)
    except OSError:
        return
