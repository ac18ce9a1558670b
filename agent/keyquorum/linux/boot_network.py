# SPDX-License-Identifier: Apache-2.0
"""The network of an initramfs, brought up when the first custodian is asked and not before (docs/boot.md §12).

The boot image's script does it and may take minutes, so it runs in a thread that nobody joins; who needs the network
waits only until there is an address, or his own patience is over. In a running system there is no such script, and
the network is others' business.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from keyquorum.errors import KeyquorumError, UnavailableError
from keyquorum.linux import boot_record, run
from keyquorum.mailbox import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.linux.tls_connection import Patience

SCRIPT = "/usr/lib/keyquorum/network-up"
LOCK = "/run/keyquorum/network.lock"
_IPV4_ROUTES, _IPV6_ADDRESSES = "/proc/net/route", "/proc/net/if_inet6"
_FROM_INITRAMFS = ("IP", "DEVICE", "BOOTIF", "starttime")  # what /init exports for configure_networking
_MOST = 300.0  # seconds; configure_networking itself ends after some 265
_LOOK_AGAIN = 0.2
_MOST_WORDS = 200
_UP = 0x1  # RTF_UP
_LINK, _LOOPBACK = "20", "10"  # scopes in if_inet6 that lead nowhere


def ensure(patience: Patience) -> None:
    """Return when the machine has an address to start from.

    Raises `UnavailableError` when it has none yet at the deadline, or when it is called off.
    """
    if not os.path.exists(SCRIPT) or configured():
        return
    _start()
    try:
        while not configured():
            patience.wait(select.poll(), time.monotonic() + _LOOK_AGAIN)
    except TimeoutError:
        raise UnavailableError("the network is not up yet", "is the cable in? is there a DHCP server?") from None


def begin() -> None:
    """Have it brought up if it is down, and wait for nothing; what goes wrong is in the kernel's log."""
    if not os.path.exists(SCRIPT) or configured():
        return
    try:
        _start()
    except UnavailableError as error:
        boot_record.to_kernel_log(f"the network is not brought up: {error.message}")


def configured() -> bool:
    """Say whether there is a route of IPv4, or an address of IPv6 beyond its own link."""
    for line in _lines(_IPV4_ROUTES)[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[0] != "lo" and int(fields[3], 16) & _UP:
            return True
    rows = [line.split() for line in _lines(_IPV6_ADDRESSES)]
    return any(len(row) > 4 and row[3] not in {_LINK, _LOOPBACK} for row in rows)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _start() -> None:
    """Begin to bring it up, unless somebody does already: another volume's unlock, or an earlier question of ours."""
    try:
        descriptor = os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnavailableError(f"{LOCK} cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return
    if configured():  # whoever had the lock before us has brought it up since we looked
        os.close(descriptor)
        return
    try:
        start_thread(_bring_up, descriptor)
    except UnavailableError:
        os.close(descriptor)
        raise


def _bring_up(lock: int) -> None:
    """Run the script and let go of the lock."""
    environment = {name: os.environ[name] for name in _FROM_INITRAMFS if name in os.environ}
    try:
        done = run.run((SCRIPT,), run.Limits(seconds=_MOST), environment=environment)
        if done.status:
            boot_record.to_kernel_log(
                f"the network did not come up: exit status {done.status} {done.errors[:_MOST_WORDS]}"
            )
    except KeyquorumError as error:
        boot_record.to_kernel_log(f"the network did not come up: {error.message}")
    finally:
        os.close(lock)
