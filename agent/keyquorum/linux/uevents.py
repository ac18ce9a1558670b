# SPDX-License-Identifier: Apache-2.0
"""Waiting for the kernel to announce a device, so that a holder that is plugged in late is asked at once.

A boot cannot afford pyroute2 for this; the daemon, which watches for longer and for more, uses it.
"""

from __future__ import annotations

import select
import time
from _socket import SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket

from keyquorum.deadline import ready

_AF_NETLINK, _KOBJECT_UEVENT = 16, 15
_KERNEL_GROUP = 1
_INTERESTING = (b"SUBSYSTEM=block\0", b"SUBSYSTEM=tpmrm\0", b"SUBSYSTEM=usb\0")
_SETTLE = 0.3  # a disk's partitions follow the disk within this time


class DeviceEvents:
    """A listener. Where the kernel grants none, `wait` is a plain pause, so that polling still works."""

    def __init__(self) -> None:
        self._socket: socket | None
        try:
            self._socket = socket(_AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, _KOBJECT_UEVENT)
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError:
            self._socket = None

    def wait(self, seconds: float) -> bool:
        """Return when an interesting device came or `seconds` have passed; say whether one came."""
        end = time.monotonic() + seconds
        if self._socket is None:
            time.sleep(max(0.0, seconds))
            return False
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        while ready(poller, end):
            if self._drain():
                time.sleep(min(_SETTLE, max(0.0, end - time.monotonic())))
                self._drain()
                return True
        return False

    def _drain(self) -> bool:
        """Read all waiting messages; say whether one of them matters."""
        matters = False
        assert self._socket is not None
        while True:
            try:
                message = self._socket.recv(8192)
            except BlockingIOError:
                return matters
            except OSError:
                return True  # messages were lost (ENOBUFS): look for ourselves
            if message.startswith((b"add@", b"change@")) and any(part in message for part in _INTERESTING):
                matters = True

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
