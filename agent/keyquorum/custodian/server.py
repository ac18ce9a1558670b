# SPDX-License-Identifier: Apache-2.0
"""Accepting connections: a thread for each, bounds on how many, reload and stop without cutting any off (docs §12)."""

from __future__ import annotations

import select
import ssl
import threading
import time
from typing import TYPE_CHECKING

from keyquorum.custodian.admission import Admission
from keyquorum.custodian.connection import Connection
from keyquorum.errors import KeyquorumError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from keyquorum.custodian.connection import Manner

_STACK = 1024 * 1024  # bytes of a connection's thread
_LOOK_AGAIN = 0.05


def tls_context(certificate: str, key: str, authorities: str) -> ssl.SSLContext:
    """Return a context from three PEM files: TLS 1.3 only, and a client's certificate is asked for.

    It is not demanded: a machine that is being enrolled has none yet. One that is shown must be of an authority.
    Raises `KeyquorumError` naming what cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET  # no resumption: every connection shows its certificate
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = f"{certificate}, {key} and {authorities}"
        raise KeyquorumError(f"TLS cannot be set up from {files}: {error}") from None
    return context


class Server:
    """The connections of one process."""

    def __init__(
        self, listeners: Sequence[socket.socket], make_context: Callable[[], ssl.SSLContext], manner: Manner
    ) -> None:
        self._listeners, self._make_context, self._manner = list(listeners), make_context, manner
        self._context = make_context()
        self._admission = Admission(manner.limits)
        self._open: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        threading.stack_size(_STACK)
        for listener in self._listeners:
            listener.setblocking(False)

    def reload(self, manner: Manner) -> None:
        """Treat new connections by new files and settings; old ones go on.

        Raises `KeyquorumError`, and then nothing was changed.
        """
        self._context, self._manner = self._make_context(), manner

    def serve(self, wakes: Mapping[int, Callable[[], bool]]) -> None:
        """Accept until one of `wakes`, called when its descriptor can be read or is closed, returns False."""
        poller = select.poll()
        for wake in wakes:
            poller.register(wake, select.POLLIN)
        by_descriptor = {listener.fileno(): listener for listener in self._listeners}
        for descriptor in by_descriptor:
            poller.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor in wakes:
                    if not wakes[descriptor]():
                        return
                else:
                    self._accept(by_descriptor[descriptor])

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionError):  # another process was faster, or the client gave up
            return
        except OSError:  # no descriptors left: those that are open have deadlines, so there will be some
            time.sleep(_LOOK_AGAIN)
            return
        host = str(address[0])
        if not self._admission.enter(host):
            self._manner.counters.add("connections_refused")
            accepted.close()
            return
        connection = Connection(accepted, host, self._context, self._manner)
        thread = threading.Thread(target=self._run, args=(connection, host), daemon=True)
        self._manner.counters.add("connections_open")
        self._manner.counters.add("connections_total")
        with self._lock:
            self._open[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # no thread to be had
            connection.close()
            self._leave(connection, host)

    def _run(self, connection: Connection, host: str) -> None:
        try:
            connection.run()
        finally:
            self._leave(connection, host)

    def _leave(self, connection: Connection, host: str) -> None:
        self._admission.leave(host)
        self._manner.counters.add("connections_open", -1)
        with self._lock:
            self._open.pop(connection, None)

    def stop(self) -> None:
        """Let nobody in any more, end idle connections, and wait for the others as long as the grace lasts."""
        for listener in self._listeners:
            listener.close()
        deadline = time.monotonic() + self._manner.limits.grace
        while time.monotonic() < deadline:
            with self._lock:
                rest = list(self._open)
            if not rest:
                return
            for connection in rest:
                connection.finish()
            time.sleep(_LOOK_AGAIN)
