# SPDX-License-Identifier: Apache-2.0
"""Reaching a custodian: several addresses side by side, the first that proves to be it wins (RFC 8305).

An attempt is a TCP connection and a TLS handshake. A new one begins every 250 ms while none has come through, or at
once when one failed; so an address that is silent, refuses or is somebody else's costs a moment and no more (I3). One
thread does all of it; nothing here waits beyond the deadline or after being called off.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from keyquorum.deadline import ready
from keyquorum.errors import UnavailableError
from keyquorum.linux.resolve import Resolver, Target, Unresolved
from keyquorum.native.tls import Session
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from keyquorum.model.network_address import Endpoint
    from keyquorum.native.tls import Context

_STAGGER = 0.25  # RFC 8305 §5, "Connection Attempt Delay"
_CONNECT = 5.0  # seconds for one address, TCP and TLS, at least; who may take longer in all has a third of that
_PIECE = 16 * 1024
_AGAIN = frozenset({errno.EAGAIN, errno.EINTR, errno.EINPROGRESS})


class Patience(Record):
    """When to stop: a deadline on the monotonic clock, and a descriptor that is readable once nobody waits any more."""

    deadline: float
    cancel: int = -1

    def wait(self, poll: select.poll, until: float) -> dict[int, int]:
        """Wait for events up to `until` or the deadline; raises `UnavailableError` when it is time to stop."""
        if self.cancel >= 0:
            poll.register(self.cancel, select.POLLIN)
        events = ready(poll, min(until, self.deadline))
        if self.cancel in events:
            raise UnavailableError("the question was called off")
        if time.monotonic() >= self.deadline:  # whatever came: who never stops sending must not be listened to for ever
            raise TimeoutError
        return events


class Connection:
    """A socket with TLS in it. `close` it."""

    def __init__(self, target: Target, context: Context, server: str, seconds: float) -> None:
        """Begin to connect, to be given up after `seconds`; raises `UnavailableError` when that fails at once."""
        self.target, self.ready = target, False
        self.give_up = time.monotonic() + seconds
        self._connected = False
        self._unsent = b""
        self._session = Session(context, server)
        try:
            kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
            self._socket = _socket.socket(target.family, kind)
        except OSError as error:
            self._session.close()
            raise UnavailableError(_words(error.errno)) from None
        try:
            failed = self._socket.connect_ex(target.address)
        except OSError as error:
            failed = error.errno or errno.EINVAL
        if failed and failed not in _AGAIN:
            self.close()
            raise UnavailableError(_words(failed))

    @property
    def descriptor(self) -> int:
        """The socket's."""
        return int(self._socket.fileno())

    @property
    def wants(self) -> int:
        """What to wait for."""
        return select.POLLIN if self._connected and not self._unsent else select.POLLIN | select.POLLOUT

    def go_on(self) -> bool:
        """Do what can be done without waiting; say whether the handshake is complete."""
        if not self._connected:
            failed = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if failed:
                raise UnavailableError(_words(failed))
            self._connected = True
            if self.target.family != _socket.AF_VSOCK:
                self._socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        else:
            self._receive()
        if not self.ready:
            try:
                self.ready = self._session.handshake()
            finally:
                self._unsent += self._session.to_send()  # an alert, too, wants to be sent
                self._send()
        else:
            self._send()
        return self.ready

    def peer_key(self) -> bytes:
        """Return the key of the other end's certificate, SubjectPublicKeyInfo in DER; needs a complete handshake."""
        return self._session.peer_key()

    def write(self, data: bytes) -> None:
        """Queue data; it is sent while an answer is waited for."""
        self._session.write(data)
        self._unsent += self._session.to_send()
        self._send()

    def read(self, patience: Patience) -> bytes:
        """Return the next bytes of the other end, b"" at its end.

        Raises `UnavailableError` when the connection breaks, `TimeoutError` at the deadline.
        """
        while (found := self._session.read()) is None:
            poll = select.poll()
            poll.register(self.descriptor, self.wants)
            if patience.wait(poll, patience.deadline):
                self.go_on()
        return found

    def close(self) -> None:
        """Say goodbye if that is possible at once, and close."""
        if self.ready:
            self._session.finish()
            self._unsent += self._session.to_send()
            try:
                self._send()
            except UnavailableError:
                self.ready = False
        self._session.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_PIECE)
        except OSError as error:
            if error.errno in _AGAIN:
                return
            raise UnavailableError(_words(error.errno)) from None
        if not data:
            raise UnavailableError("the connection was closed by the other end")
        self._session.receive(data)

    def _send(self) -> None:
        while self._connected and self._unsent:
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except OSError as error:
                if error.errno in _AGAIN:
                    return
                raise UnavailableError(_words(error.errno)) from None


def connect(endpoints: tuple[Endpoint, ...], context: Context, server: str, patience: Patience) -> Connection:
    """Return a connection to whoever of `endpoints` first proves to be `server`.

    Raises `UnavailableError` that says of each address what was wrong with it.
    """
    race = _Race(context, server, patience)
    try:
        with Resolver() as resolver:
            for endpoint in endpoints:
                resolver.ask(endpoint)
            return race.run(resolver)
    except TimeoutError:
        race.note_unfinished()
        raise UnavailableError(f"{server} does not answer: {race.problems()}") from None
    finally:
        race.close()


class _Race:
    def __init__(self, context: Context, server: str, patience: Patience) -> None:
        self._context, self._server, self._patience = context, server, patience
        self._seconds = max(_CONNECT, (patience.deadline - time.monotonic()) / 3)  # for one address
        self._queue: list[Target] = []
        self._running: list[Connection] = []
        self._failed: dict[str, str] = {}
        self._next = 0.0  # when another attempt may begin
        self._family = _socket.AF_INET6  # which comes first

    def run(self, resolver: Resolver) -> Connection:
        """Go on until one has won."""
        while True:
            self._accept(resolver.take())
            now = time.monotonic()
            if self._queue and (now >= self._next or not self._running):
                self._begin(self._pick(), now)
                continue
            if not self._running and not self._queue and not resolver.waiting:
                raise UnavailableError(f"{self._server} cannot be reached: {self.problems()}")
            poll = select.poll()
            poll.register(resolver.descriptor, select.POLLIN)
            for connection in self._running:
                poll.register(connection.descriptor, connection.wants)
            ends = [connection.give_up for connection in self._running]
            events = self._patience.wait(
                poll, min([*ends, *([self._next] if self._queue else []), now + self._seconds])
            )
            winner = self._advance(set(events))
            if winner is not None:
                return winner

    def _accept(self, results: list[Target | Unresolved]) -> None:
        for result in results:
            if isinstance(result, Target):
                self._queue.append(result)
            else:
                self._failed[str(result.endpoint)] = result.problem

    def _pick(self) -> Target:
        """Return the next address, of the other family than the last one if there is one (RFC 8305 §4)."""
        numbers = range(len(self._queue))
        wanted = next((number for number in numbers if self._queue[number].family == self._family), 0)
        target = self._queue.pop(wanted)
        self._family = _socket.AF_INET if target.family == _socket.AF_INET6 else _socket.AF_INET6
        return target

    def _begin(self, target: Target, now: float) -> None:
        self._next = now + _STAGGER
        try:
            self._running.append(Connection(target, self._context, self._server, self._seconds))
        except UnavailableError as error:
            self._fail(target, error.message)

    def _advance(self, touched: set[int]) -> Connection | None:
        for connection in tuple(self._running):
            problem = "" if time.monotonic() < connection.give_up else f"no answer in {self._seconds:.0f} s"
            try:
                if connection.descriptor in touched and connection.go_on():
                    self._running.remove(connection)
                    return connection
            except UnavailableError as error:
                problem = error.message
            if problem:
                self._running.remove(connection)
                connection.close()
                self._fail(connection.target, problem)
        return None

    def _fail(self, target: Target, problem: str) -> None:
        self._next = 0.0
        self._failed[str(target.endpoint)] = problem

    def note_unfinished(self) -> None:
        """Note those that were still being tried."""
        for connection in self._running:
            self._failed.setdefault(str(connection.target.endpoint), "no answer")

    def problems(self) -> str:
        """Say of each address what was wrong with it."""
        return "; ".join(f"{where}: {problem}" for where, problem in self._failed.items()) or "no address was found"

    def close(self) -> None:
        """Close what did not win."""
        for connection in self._running:
            connection.close()
        self._running = []


def _words(number: int | None) -> str:
    return os.strerror(number or 0).lower()
