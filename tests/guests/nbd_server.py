# SPDX-License-Identifier: Apache-2.0
"""A disk that remembers every write and that can fail the ways disks fail: silent, slow, erring, read-only.

    with WriteLog() as log, NbdServer(image, socket_path(directory, "a"), name="a", log=log) as server:
        with Machine(disks=[server.disk("holder-a")], …) as vm:
            server.faults = Faults(reads="silent")

Faults may change at any moment and hold for the requests that come from then on. Silent requests are kept; they are
answered when the fault that silenced them is lifted.
"""

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from guests import nbd_protocol
from guests.hardware import Disk
from guests.nbd_protocol import FUA, READ, WRITE, Request
from guests.write_log import WriteLog

Behaviour = Literal["works", "silent", "error"]


@dataclass(frozen=True)
class Faults:
    """How the disk behaves from now on. `slow` seconds pass before each answer; flushes behave as writes do."""

    reads: Behaviour = "works"
    writes: Behaviour = "works"
    read_only: bool = False
    slow: float = 0.0


@dataclass
class _Connection:
    """One client; what it left unanswered is dropped when it ends, as a disk drops what its bus did not deliver."""

    line: socket.socket
    answering: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False


class NbdServer:
    """One raw image served on a unix socket, to any number of connections."""

    def __init__(
        self, image: str, path: str, *, name: str = "disk", log: WriteLog | None = None, read_only: bool = False
    ) -> None:
        self.path = path
        self.name = name
        self.log = log
        self._read_only = read_only
        self._image = image
        self._faults = Faults()
        self._changed = threading.Condition()
        self._stopping = False
        self._connections: list[_Connection] = []
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.requests = 0

    def disk(
        self,
        serial: str,
        *,
        bus: Literal["virtio", "scsi"] = "virtio",
        cache: Literal["writeback", "writethrough"] = "writeback",
    ) -> Disk:
        """The disk as a machine attaches it.

        With "writeback", the guest sees a disk with a cache and flushes when it wants to be sure, and the log shows what
        a power cut could still lose; with "writethrough", every write is marked as forced.
        """
        return Disk(self.path, serial, format="nbd", cache=cache, bus=bus, read_only=self._read_only)

    @property
    def faults(self) -> Faults:
        """How the disk behaves."""
        with self._changed:
            return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._changed:
            self._faults = faults
            self._changed.notify_all()

    def wait_for_requests(self, number: int, timeout: float) -> bool:
        """Wait until so many requests have come in all, answered or not."""
        with self._changed:
            return self._changed.wait_for(lambda: self.requests >= number, timeout)

    def wait_for_clients(self, number: int, timeout: float) -> bool:
        """Wait until exactly so many clients are connected."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(not connection.ended for connection in self._connections) == number, timeout
            )

    def __enter__(self) -> Self:
        self._file = os.open(self._image, (os.O_RDONLY if self._read_only else os.O_RDWR) | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            lines = [self._listener, *(connection.line for connection in self._connections)]
            self._changed.notify_all()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for line in lines:
            line.close()
        os.close(self._file)
        os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._stopping:
                    line.close()
                    return
                connection = _Connection(line)
                self._connections.append(connection)
                self._changed.notify_all()
            self._begin(functools.partial(self._serve, connection))

    def _begin(self, what: Callable[[], None]) -> None:
        thread = threading.Thread(target=what, daemon=True, name=f"nbd {self.name}")
        self._threads.append(thread)
        thread.start()

    def _serve(self, connection: _Connection) -> None:
        try:
            if nbd_protocol.negotiate(connection.line, self._size, read_only=self._read_only):
                while (request := nbd_protocol.receive(connection.line)).kind != nbd_protocol.DISCONNECT:
                    self._take(connection, request)
        except (OSError, EOFError, nbd_protocol.ProtocolError):
            pass  # the client is gone, or no NBD client: either way it is served no more
        finally:
            with self._changed:
                connection.ended = True
                self._changed.notify_all()
            with contextlib.suppress(OSError):
                connection.line.shutdown(socket.SHUT_RDWR)

    def _take(self, connection: _Connection, request: Request) -> None:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
            behaviour, slow = self._behaviour(request), self._faults.slow
        if behaviour == "silent" or slow:
            self._begin(functools.partial(self._answer_later, connection, request, slow))
        else:
            self._answer(connection, request, behaviour)

    def _behaviour(self, request: Request) -> Behaviour:
        return self._faults.reads if request.kind == READ else self._faults.writes

    def _answer_later(self, connection: _Connection, request: Request, slow: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over(connection), slow)
            self._changed.wait_for(lambda: self._over(connection) or self._behaviour(request) != "silent")
            if self._over(connection):
                return
            behaviour = self._behaviour(request)
        with contextlib.suppress(OSError):
            self._answer(connection, request, behaviour)

    def _over(self, connection: _Connection) -> bool:
        return self._stopping or connection.ended

    def _answer(self, connection: _Connection, request: Request, behaviour: Behaviour) -> None:
        error, data = (nbd_protocol.EIO, b"") if behaviour == "error" else self._do(request)
        with connection.answering:
            nbd_protocol.reply(connection.line, request, error=error, data=data)

    def _do(self, request: Request) -> tuple[int, bytes]:
        """Carry out a request; its error number and what was read."""
        if request.offset + request.size > self._size:
            return nbd_protocol.ENOSPC if request.kind == WRITE else nbd_protocol.EINVAL, b""
        match request.kind:
            case nbd_protocol.READ:
                return 0, os.pread(self._file, request.size, request.offset)
            case nbd_protocol.WRITE if self._read_only or self._faults.read_only:
                return nbd_protocol.EPERM, b""
            case nbd_protocol.WRITE:
                with self._writing:  # the log's order is the image's
                    if self.log is not None:
                        self.log.wrote(self.name, request.offset, request.data, forced=bool(request.flags & FUA))
                    os.pwrite(self._file, request.data, request.offset)
                return 0, b""
            case nbd_protocol.FLUSH:
                if self.log is not None:
                    self.log.flushed(self.name)
                return 0, b""
            case _:
                return nbd_protocol.EINVAL, b""
