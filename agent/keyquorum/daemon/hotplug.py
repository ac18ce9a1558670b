# SPDX-License-Identifier: Apache-2.0
"""The kernel's announcements of devices, read by pyroute2 in a thread (0.7 to 0.9; docs/daemon.md §3)."""

from __future__ import annotations

import threading
import time

from keyquorum import speech
from keyquorum.daemon.netlink import NetlinkError, NetlinkSocket, UeventSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEVICE, MAPPING = "device", "mapping"
_KERNEL_GROUP = 1  # udev's own group speaks another format, and tells nothing that we need
_OF_OTHERS = ("dm-", "loop", "ram", "zram", "md", "nbd", "sr", "fd")  # never holders (linux/block.py skips them too)
_PAUSE = 5.0  # seconds before listening again after an error


def meaning(event: Mapping[str, object]) -> str:
    """Return DEVICE when a holder may have come, MAPPING when a volume may have been opened or closed, else "".

    A "change" is no arrival unless the medium changed: every program that closes a disk after writing causes one.
    """
    action, subsystem, name = (str(event.get(key, "")) for key in ("ACTION", "SUBSYSTEM", "DEVNAME"))
    if subsystem == "block":
        if name.startswith("dm-"):
            return MAPPING
        came = action == "add" or (action == "change" and event.get("DISK_MEDIA_CHANGE") == "1")
        return DEVICE if came and not name.startswith(_OF_OTHERS) else ""
    if action == "add" and (
        subsystem in {"tpm", "tpmrm"} or (subsystem == "usb" and event.get("DEVTYPE") == "usb_device")
    ):
        return DEVICE
    return ""


class Hotplug:
    """Listens in a thread and calls `tell` there with DEVICE or MAPPING; `alive` is false when the thread ended."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._thread = threading.Thread(target=self._listen, name="hotplug", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Say whether somebody still listens."""
        return self._thread.is_alive()

    def _listen(self) -> None:
        while True:
            try:
                self._read()
            except (OSError, ValueError, NetlinkError, KeyError) as error:  # lost, not UTF-8, or (KeyError) not bound
                speech.warn(f"listening for devices was interrupted: {type(error).__name__}")
                self._tell(DEVICE)  # nobody knows what was missed
                time.sleep(_PAUSE)

    def _read(self) -> None:
        with UeventSocket() as listener:
            NetlinkSocket.bind(listener, groups=_KERNEL_GROUP)  # UeventSocket.bind of 0.7 takes all groups
            while True:
                for event in listener.get():
                    said = meaning(event)
                    if said:
                        self._tell(said)
