# SPDX-License-Identifier: Apache-2.0
"""How much a server takes on, and who gets a connection and how many answers (docs/custodian.md §10)."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass, replace

_SHARED = ("connections", "for_one", "at_once", "per_minute")
_REMEMBERED = 4096  # clients whose pace is known; who has been silent longest is forgotten first


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one process, times in seconds.

    `at_once` and `per_minute` are requests of one client, or of one address without a certificate: each is an entry
    of the log, which nobody may fill.
    """

    head: float = 15.0  # a machine without hardware for elliptic curves may take seconds to shake hands
    body: float = 10.0
    work: float = 20.0
    sending: float = 10.0
    silence: float = 30.0
    grace: float = 10.0
    requests: int = 100
    connections: int = 1024
    for_one: int = 64
    at_once: int = 120
    per_minute: int = 240

    def shared(self, workers: int) -> Limits:
        """Return the part of one of several processes."""
        return replace(self, **{name: max(1, getattr(self, name) // workers) for name in _SHARED})


class Admission:
    """The connections that are open, by address; those of one IPv6 /64 are one client's."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._open: dict[str, int] = {}
        self.total = 0

    def enter(self, address: str) -> bool:
        """Count a connection in if there is room; whoever got True calls `leave`."""
        place = block(address)
        with self._lock:
            here = self._open.get(place, 0)
            if self.total >= self._limits.connections or here >= self._limits.for_one:
                return False
            self._open[place] = here + 1
            self.total += 1
            return True

    def leave(self, address: str) -> None:
        """Count a connection out."""
        place = block(address)
        with self._lock:
            self.total -= 1
            self._open[place] -= 1
            if not self._open[place]:
                del self._open[place]


class Pace:
    """How often each client asks: a bucket of `at_once` requests that fills by `per_minute`."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._per_second = float(limits.at_once), limits.per_minute / 60
        self._left: dict[bytes, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def allows(self, who: bytes, now: float) -> bool:
        """Count a request at the instant `now` (seconds of any clock that only goes forward) if there is room."""
        with self._lock:
            left = self._filled(who, now)
            self._left.pop(who, None)  # the dictionary is in the order of the last requests
            self._left[who] = (left - 1 if left >= 1 else left, now)
            if len(self._left) > _REMEMBERED:
                del self._left[next(iter(self._left))]
            return left >= 1

    def _filled(self, who: bytes, now: float) -> float:
        left, since = self._left.get(who, (self._most, now))
        return min(self._most, left + (now - since) * self._per_second)


def block(address: str) -> str:
    """Return whom an address is counted for."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
