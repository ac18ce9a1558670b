# SPDX-License-Identifier: Apache-2.0
"""One connection, from the handshake to the last answer, each phase with its deadline (docs/custodian.md §10, §12).

A connection that is too slow, too large or not HTTP ends here; what is asked is answered by `answer`, on another
thread, so that nobody's slowness holds a store.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509

from keyquorum import process, speech
from keyquorum.custodian import authority, http_head
from keyquorum.custodian.decision import Client
from keyquorum.custodian.http_head import END, MAX_HEAD, Answer, Head, RequestError
from keyquorum.errors import KeyquorumError
from keyquorum.evidence.certificate import UNREADABLE
from keyquorum.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

    from keyquorum.custodian.admission import Limits
    from keyquorum.custodian.counters import Counters

    Respond = Callable[["Client | None", str, Head, bytes, float], Answer]

_PIECE = 16 * 1024
_PARTING = 1.0  # seconds
_REMEMBERED = 1024  # certificates that were read, by their bytes; whether one counts, TLS says each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a process treats connections: `respond` answers within some seconds, `issued` knows our own certificates."""

    limits: Limits
    counters: Counters
    respond: Respond
    issued: Callable[[Certificate], bool]


class _GoneError(Exception):
    """The other end has closed the connection, or it broke; there is nobody to tell."""


class Connection:
    """A connection that was accepted. `close` may be called by another thread."""

    def __init__(self, accepted: socket.socket, address: str, context: ssl.SSLContext, manner: Manner) -> None:
        self._plain, self._address, self._context, self._manner = accepted, address, context, manner
        self._limits = manner.limits
        self._tls: ssl.SSLSocket | None = None
        self._rest = b""
        self.idle, self._ending = True, False

    def run(self) -> None:
        """Serve until the end of the connection; nothing is raised."""
        try:
            with suppress(_GoneError, OSError):  # ssl's errors among them
                self._serve()
        except Exception as error:  # noqa: BLE001 (the edge of a thread: the other connections go on)
            speech.fail(KeyquorumError(process.fault(error)))
        finally:
            self.close()

    def close(self) -> None:
        """End the connection."""
        (self._tls or self._plain).close()

    def finish(self) -> None:
        """End the connection after the request that is under way, now if there is none."""
        self._ending = True
        if self.idle:
            self._shut()

    def _shut(self) -> None:
        """Wake the thread that waits for the other end. SSLSocket's own method would take the TLS object from it."""
        try:
            socket.socket.shutdown(self._tls or self._plain, socket.SHUT_RDWR)
        except OSError:
            return

    def _serve(self) -> None:
        deadline = time.monotonic() + self._limits.head
        client = self._handshake(deadline)
        for served in range(1, self._limits.requests + 1):
            try:
                head = self._head(deadline, first=served == 1)
                body = self._body(head.length)
            except RequestError as problem:
                self._answer(_problem(problem.status, problem.message), keep=False)
                return
            except TimeoutError:
                self._manner.counters.add("too_slow")
                if not self.idle:
                    self._answer(_problem(408, "the request came too slowly"), keep=False)
                return
            answer = self._manner.respond(client, self._address, head, body, self._limits.work)
            keep = head.keep and served < self._limits.requests and not self._ending
            self._answer(answer, keep=keep)
            if not keep:
                return
            self.idle = not self._rest

    def _handshake(self, deadline: float) -> Client | None:
        self._plain.settimeout(max(0.001, deadline - time.monotonic()))
        self._tls = self._context.wrap_socket(
            self._plain, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        try:
            self._tls.do_handshake()
        except OSError:
            self._manner.counters.add("handshakes_failed")
            raise _GoneError from None
        data = self._tls.getpeercert(binary_form=True)
        return None if data is None else client_of(data, self._address, self._manner.issued)

    def _receive(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0 or self._tls is None:
            raise TimeoutError
        self._tls.settimeout(left)
        piece = self._tls.recv(_PIECE)
        if not piece:
            raise _GoneError
        self.idle = False
        return piece

    def _head(self, deadline: float, *, first: bool) -> Head:
        """Read a head. After the first request the clock starts with the first byte of the next."""
        if not first and not self._rest:
            self._rest = self._receive(time.monotonic() + self._limits.silence)
        if not first:
            deadline = time.monotonic() + self._limits.head
        while (end := self._rest.find(END)) < 0:
            if len(self._rest) > MAX_HEAD:
                raise RequestError(431, f"a head has at most {MAX_HEAD} bytes")
            self._rest += self._receive(deadline)
        if end + len(END) > MAX_HEAD:
            raise RequestError(431, f"a head has at most {MAX_HEAD} bytes")
        data, self._rest = self._rest[: end + len(END)], self._rest[end + len(END) :]
        return http_head.parse(data)

    def _body(self, length: int) -> bytes:
        deadline = time.monotonic() + self._limits.body
        pieces, have = [self._rest], len(self._rest)
        while have < length:
            pieces.append(self._receive(deadline))
            have += len(pieces[-1])
        whole = b"".join(pieces)
        self._rest = whole[length:]
        return whole[:length]

    def _answer(self, answer: Answer, *, keep: bool) -> None:
        self._manner.counters.add(f"answers_{answer.status}")
        data = memoryview(http_head.serialise(answer, keep=keep))
        deadline = time.monotonic() + self._limits.sending
        while data and self._tls is not None:
            self._tls.settimeout(max(0.001, deadline - time.monotonic()))
            data = data[self._tls.send(data) :]
        if not keep and self._tls is not None:
            self._part(self._tls)

    def _part(self, tls: ssl.SSLSocket) -> None:
        """Say that nothing was cut off, and take what the other end still sends: a reset would take our answer away."""
        deadline = time.monotonic() + _PARTING
        tls.settimeout(_PARTING)
        with suppress(OSError):  # it sends on, or is gone
            tls.unwrap()
        tls.shutdown(socket.SHUT_WR)
        taken = 0
        while taken < http_head.MAX_BODY and (left := deadline - time.monotonic()) > 0:
            tls.settimeout(left)
            piece = tls.recv(_PIECE)
            if not piece:
                return
            taken += len(piece)


def client_of(data: bytes, address: str, issued: Callable[[Certificate], bool]) -> Client:
    """Return who showed a certificate (DER) that the TLS library has accepted; raises OSError for an odd one."""
    try:
        certificate, name, labels, key = _read_certificate(data)
    except UNREADABLE:
        raise ssl.SSLError("the certificate cannot be read") from None
    return Client(key=key, name=name or "nameless", labels=labels, address=address, ours=issued(certificate))


@lru_cache(_REMEMBERED)
def _read_certificate(data: bytes) -> tuple[Certificate, str, Mapping[str, str], bytes]:
    certificate = x509.load_der_x509_certificate(data)
    name, labels = authority.labels_of(certificate)
    return certificate, name, labels, hashlib.sha256(authority.key_der(certificate)).digest()


def _problem(status: int, line: str) -> Answer:
    return Answer(status=status, body=strict_json.serialise({"problem": line}))
