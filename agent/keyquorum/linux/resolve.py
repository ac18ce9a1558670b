# SPDX-License-Identifier: Apache-2.0
"""Names of custodians to addresses, without waiting (docs/custodian.md §7).

getaddrinfo(3) can neither be given a deadline nor be called off, and it is the only way that asks whatever the system
is set up to ask. So it runs in a thread that is left behind when nobody waits any more; one question for each name at
a time, however often it is asked meanwhile, so that a silent DNS server costs one thread and not one for each try.
"""

from __future__ import annotations

import _socket
import _thread
import os

from keyquorum.errors import UnavailableError
from keyquorum.mailbox import start_thread
from keyquorum.model import network_address
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from keyquorum.model.network_address import Endpoint

_MOST = 16  # addresses of one name that are tried


class Target(Record):
    """Something to connect to: an endpoint as the policy names it, an address family and a socket address."""

    endpoint: Endpoint
    family: int
    address: Any


class Unresolved(Record):
    """A name that has no address; `problem` is the resolver's word on it."""

    endpoint: Endpoint
    problem: str


_guard = _thread.allocate_lock()
_asking: dict[Endpoint, list[Resolver]] = {}  # who waits for which name, in this process


class Resolver:
    """Results as they come: `take` returns those not taken yet, and `descriptor` is readable when there are some."""

    def __init__(self) -> None:
        """Wait for nothing yet; raises `UnavailableError` when there are no descriptors left to wait with."""
        self._results: list[Target | Unresolved] = []
        try:
            self.descriptor, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UnavailableError(f"names cannot be looked up: {error.strerror}") from None
        self.waiting = 0  # endpoints that have not been answered yet

    def ask(self, endpoint: Endpoint) -> None:
        """Begin with an endpoint; a literal address is a result at once."""
        if endpoint.kind == network_address.VSOCK:
            number = int(endpoint.host), endpoint.port
            self._results.append(Target(endpoint=endpoint, family=_socket.AF_VSOCK, address=number))
            return
        if endpoint.kind != network_address.NAME:
            family = _socket.AF_INET6 if endpoint.kind == network_address.IPV6 else _socket.AF_INET
            self._results.append(Target(endpoint=endpoint, family=family, address=(endpoint.host, endpoint.port)))
            return
        self.waiting += 1
        with _guard:
            listeners = _asking.setdefault(endpoint, [])
            listeners.append(self)
            if len(listeners) == 1:
                try:
                    start_thread(_look_up, endpoint)
                except UnavailableError as error:
                    del _asking[endpoint]
                    self.deliver([Unresolved(endpoint=endpoint, problem=error.message)])

    def take(self) -> list[Target | Unresolved]:
        """Return what has come since the last call, in order of arrival."""
        with _guard:
            found, self._results = self._results, []
            try:
                os.read(self.descriptor, 64)
            except BlockingIOError:
                return found
        return found

    def deliver(self, found: list[Target | Unresolved]) -> None:
        """Leave the answer for one endpoint. Called with the guard held, and never after `close`."""
        self._results += found
        self.waiting -= 1
        os.write(self._wake, b"\0")

    def close(self) -> None:
        """Wait for nothing any more; what comes later is dropped."""
        with _guard:
            for listeners in _asking.values():
                if self in listeners:
                    listeners[:] = [other for other in listeners if other is not self] or [_NOBODY]
            os.close(self.descriptor)
            os.close(self._wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class _Nobody(Resolver):
    """Stands for those who left before the answer came, so that the question still counts as being asked."""

    def __init__(self) -> None:
        """Hold nothing."""

    def deliver(self, found: list[Target | Unresolved]) -> None:
        """Drop it."""


_NOBODY = _Nobody()


def _look_up(endpoint: Endpoint) -> None:
    """Ask the system. Runs in a thread of its own, perhaps for long."""
    found: list[Target | Unresolved]
    try:
        # As bytes: a text would be encoded by a codec that a boot image lacks.
        rows = _socket.getaddrinfo(endpoint.host.encode("ascii"), endpoint.port, 0, _socket.SOCK_STREAM)
        found = [Target(endpoint=endpoint, family=row[0], address=row[4]) for row in rows[:_MOST]]
    except OSError as error:
        found = [Unresolved(endpoint=endpoint, problem=error.strerror or str(error))]
    with _guard:
        for listener in _asking.pop(endpoint):
            listener.deliver(found)
