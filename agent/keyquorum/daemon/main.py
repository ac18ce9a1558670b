# SPDX-License-Identifier: Apache-2.0
"""The program `keyquorumd`: waits for devices, delays and signals, and has waiting volumes tried again.

It holds no secret and opens nothing (docs/daemon.md §3).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from keyquorum import process
from keyquorum.daemon import hotplug
from keyquorum.daemon.watch import Watch
from keyquorum.errors import KeyquorumError
from keyquorum.linux import notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = """\
usage: keyquorumd

The service keyquorumd.service: watches volumes that wait at their passphrase prompt, and has them opened from their
fragments when a holder comes. Takes no arguments. SIGHUP: try again now. See docs/daemon.md.
"""
_DEVICE, _MAPPING = b"\xf0", b"\xf1"  # in the wake-up pipe, beside the numbers of signals
_SETTLE, _AT_MOST = 0.5, 3.0  # seconds without a further announcement, and at most, before a burst counts as over
_IDLE = 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until SIGTERM; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words:
        sys.stdout.write(_USAGE)
        return 0 if words in (["--help"], ["-h"]) else 2
    return process.run(_serve)


def _serve() -> int:
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)  # the pipe tells which one came
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    listener = hotplug.Hotplug(lambda said: _wake(write_end, _DEVICE if said == hotplug.DEVICE else _MAPPING))
    watch = Watch()
    notify.ready()
    watch.tell_boot()
    watch.look(device_came=False)
    try:
        return _watch(read_end, listener, watch)
    finally:
        notify.stopping()


def _watch(read_end: int, listener: hotplug.Hotplug, watch: Watch) -> int:
    heartbeat = notify.watchdog_seconds() or _IDLE
    while True:
        notify.alive()
        said = _wait(read_end, min(heartbeat, max(0.0, watch.look_again - time.monotonic())))
        if signal.SIGTERM in said or signal.SIGINT in said:
            return 0
        if not listener.alive:
            raise KeyquorumError("nobody listens for devices any more", "systemd starts keyquorumd again")
        if signal.SIGHUP in said:
            notify.reloading()
            watch.forget()
            watch.tell_boot()
            notify.ready()
        if said or time.monotonic() >= watch.look_again:
            watch.look(device_came=_DEVICE[0] in said or signal.SIGHUP in said)


def _wait(read_end: int, seconds: float) -> bytes:
    """Return what woke us, "" when the time is over; a burst of announcements is waited for to its end."""
    poller = select.poll()
    poller.register(read_end, select.POLLIN)
    said, end = bytearray(), 0.0
    while poller.poll(seconds * 1000):
        end = end or time.monotonic() + _AT_MOST
        said += os.read(read_end, 4096)
        seconds = min(_SETTLE, end - time.monotonic())
        if signal.SIGTERM in said or seconds <= 0:
            break
    return bytes(said)


def _wake(write_end: int, mark: bytes) -> None:
    try:
        os.write(write_end, mark)
    except BlockingIOError:  # the pipe is full of wake-ups
        return


if __name__ == "__main__":
    sys.exit(main())
