# SPDX-License-Identifier: Apache-2.0
"""One HTTP request of ours and its answer: bounded in time and bytes, no redirects, no proxies, no cookies.

Each step has its time-out (connecting, the handshake, a piece of the answer), and the whole has one from the moment
there is a connection: somebody may send a byte of a header now and then for ever. What comes is for the caller to
believe or not. A boot speaks HTTP by `model/http_answer.py`, without these modules of the standard library.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Answer(NamedTuple):
    """What a server says: status, headers by their name in lower case, content."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Seconds for one step and for the whole, bytes of the content; of a longer one a byte more is returned."""

    step: float
    whole: float
    content: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Where to connect, the name that the server's certificate has, what is asked for; with a body it is a POST."""

    host: str
    port: int
    name: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def ask(request: Request, tls: ssl.SSLContext | None, bounds: Bounds) -> Answer:
    """Ask, over TLS unless there is no context; raises `UnavailableError` if no whole answer comes in time.

    What is wrong is said without saying of whom; the caller names the server as its person knows it.
    """
    try:
        plain = socket.create_connection((request.host, request.port), bounds.step)
        with plain, _ended_later(plain, bounds.whole):
            if tls is None:
                return _exchange(plain, request, bounds)
            with tls.wrap_socket(plain, server_hostname=request.name) as wrapped:
                return _exchange(wrapped, request, bounds)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"does not answer: {str(error) or type(error).__name__}") from None


def _exchange(connected: socket.socket, request: Request, bounds: Bounds) -> Answer:
    connection = http.client.HTTPConnection(request.name, request.port)
    connection.sock = connected
    if isinstance(connected, ssl.SSLSocket):
        connection.default_port = 443  # which the Host header leaves out
    method = "GET" if request.body is None else "POST"
    connection.request(method, request.path, request.body, {"Connection": "close", **request.headers})
    response = connection.getresponse()
    content = response.read(bounds.content + 1)
    if response.length and len(content) <= bounds.content:
        raise http.client.IncompleteRead(b"", response.length)
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


@contextmanager
def _ended_later(plain: socket.socket, seconds: float) -> Iterator[None]:
    """End the connection after a while, whatever has become of the socket's object; raises `TimeoutError` if so.

    Raises `UnavailableError` where no thread can be had that would do it.
    """
    own, over = plain.dup(), threading.Event()

    def end() -> None:
        over.set()
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)

    clock = threading.Timer(seconds, end)
    clock.daemon = True
    try:
        clock.start()
    except RuntimeError:
        own.close()
        raise UnavailableError("cannot be asked: this system has no thread left") from None
    try:
        yield
    except (OSError, http.client.HTTPException):
        if over.is_set():
            raise TimeoutError("it takes too long") from None
        raise
    finally:
        clock.cancel()
        clock.join()
        own.close()
    if over.is_set():  # an answer that ends with the connection was cut off
        raise TimeoutError("it takes too long")
