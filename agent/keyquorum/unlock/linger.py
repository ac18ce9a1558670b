# SPDX-License-Identifier: Apache-2.0
"""After the fall back to the prompt: keep watching, open the volume if its holders come (I3, I4; docs/boot.md §9).

The prompt is never delayed by this. The process holds no secret while it waits; it ends when the volume is open,
whoever opened it, and the boot's local-bottom script ends it at the latest.
"""

from __future__ import annotations

import os
import time

from keyquorum import secret
from keyquorum.linux import boot_record, cryptsetup, prompt_withdrawal
from keyquorum.linux.uevents import DeviceEvents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.unlock.proxy import Proxy

PID_FILES = "/run/keyquorum"
_LOOK_AGAIN = 5.0  # seconds between looks whether somebody opened the volume
_SELDOM = 30.0  # at most between attempts that no device asked for: a module that hangs keeps a thread of each
_AT_MOST = 24 * 3600.0


def linger(proxy: Proxy) -> None:
    """Leave a child watching; returns in the parent at once."""
    secret.wipe_all()
    if os.fork():
        return
    secret.start_afresh()
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    noted = f"{PID_FILES}/{proxy.arguments.name}.pid"
    _keep_pid(noted)
    _watch(proxy)
    _drop_pid(noted)
    secret.wipe_all()
    os._exit(0)


def _watch(proxy: Proxy) -> None:
    quiet = proxy.with_(
        arguments=proxy.arguments.with_(prompt=False), context=proxy.context.with_(tell=lambda _v: None)
    )
    events, end = DeviceEvents(), time.monotonic() + _AT_MOST
    name, delay = proxy.arguments.name, _LOOK_AGAIN
    due = time.monotonic() + delay
    while time.monotonic() < end:
        came = events.wait(_LOOK_AGAIN)
        if cryptsetup.is_active(name):
            return
        if not came and time.monotonic() < due:
            continue
        report = quiet.unlock()
        delay = _LOOK_AGAIN if came else min(delay * 2, _SELDOM)
        due = time.monotonic() + delay
        if report.outcome == "opened":
            boot_record.to_kernel_log(f"{name} was opened by a holder that came late")
            boot_record.keep_report(report)
            prompt_withdrawal.withdraw(name)
            return


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
