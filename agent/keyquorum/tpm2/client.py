# SPDX-License-Identifier: Apache-2.0
"""Sending commands and taking answers apart, up to their authorisation (Part 1 §18; docs/holders-tpm.md §3)."""

from __future__ import annotations

import time

from keyquorum.errors import RefusedError, UnavailableError
from keyquorum.secret import Secret
from keyquorum.tpm2.wire import PASSWORD_SESSION, Reader, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol, Self

    class Device(Protocol):
        """What carries commands: `linux.tpm_device` on a machine."""

        deadline: float
        managed: bool  # true when the kernel flushes what a closed descriptor left in the TPM

        def transmit(self, command: bytes, response: Secret) -> int:
            """Send a command, put the answer into `response` and return its size; raises `UnavailableError`."""


_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_HEADER = 10
_RESPONSE_SIZE = 4096  # the kernel's TPM_BUFSIZE; no TPM answers more
_AGAIN = frozenset({0x908, 0x90A, 0x920, 0x922})  # YIELDED, TESTING, NV_RATE, RETRY
_PAUSE, _MOST_PAUSES = 0.05, 100
EMPTY_PASSWORD = u32(PASSWORD_SESSION) + bytes(5)  # no nonce, no attributes, no password


class Answer:
    """Where in the response's memory the parameters of an answer are, and what came beside them."""

    __slots__ = ("authorization", "handle", "size", "start")

    def __init__(self, handle: int, start: int, size: int, authorization: bytes) -> None:
        self.handle, self.start, self.size, self.authorization = handle, start, size, authorization


class Tpm:
    """A TPM behind a device. Answers stay in protected memory; `public` copies those that are no secret."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.response = Secret(_RESPONSE_SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.response.wipe()

    def run(
        self,
        command: int,
        handles: tuple[int, ...] = (),
        parameters: bytes = b"",
        authorization: bytes = b"",
        *,
        gives_handle: bool = False,
    ) -> Answer:
        """Execute a command and return where its answer is.

        Raises `ResponseError` when the TPM says no, `UnavailableError` when it cannot be asked now, `RefusedError`
        for an answer that is not one.
        """
        body = b"".join(u32(handle) for handle in handles)
        if authorization:
            body += u32(len(authorization)) + authorization
        body += parameters
        tag = _SESSIONS if authorization else _NO_SESSIONS
        sent = u16(tag) + u32(_HEADER + len(body)) + u32(command) + body
        size, code = self._send(sent)
        if code:
            from keyquorum.tpm2.codes import failure

            raise failure(code, command)
        return self._split(size, tag, gives_handle=gives_handle)

    def public(self, answer: Answer, what: str) -> Reader:
        """Return a reader of an answer's parameters; only for answers that hold no secret."""
        return Reader(
            bytes(self.response.view[answer.start : answer.start + answer.size]), f"the TPM's answer to {what}"
        )

    def flush(self, handle: int) -> None:
        """Forget a session or an object in the TPM. Failing at that is no failure: the caller is done with it."""
        if not self.device.managed:
            try:
                self.run(0x165, (), u32(handle))  # TPM2_FlushContext: the handle is a parameter
            except (RefusedError, UnavailableError):
                return

    def _send(self, sent: bytes) -> tuple[int, int]:
        """Send until the TPM no longer asks for patience; return the answer's size and response code."""
        for pause in range(_MOST_PAUSES, -1, -1):
            size = self.device.transmit(sent, self.response)
            if size < _HEADER:
                raise RefusedError(f"the TPM answered with {size} bytes, which is no answer", tampered=True)
            header = Reader(bytes(self.response.view[2:_HEADER]), "the TPM's answer")
            if header.u32() != size:
                header.fail(f"it has {size} bytes and says otherwise")
            code = header.u32()
            if code not in _AGAIN or not pause or time.monotonic() + _PAUSE >= self.device.deadline:
                return size, code
            time.sleep(_PAUSE)
        raise AssertionError("the last turn returns")

    def _split(self, size: int, tag: int, *, gives_handle: bool) -> Answer:
        """Find handle, parameters and authorisation in a successful answer."""
        reader = Reader(bytes(self.response.view[:2]) + bytes(size - _HEADER), "the TPM's answer")
        if reader.u16() != tag:
            reader.fail("its tag is not the command's")
        view, at, handle = self.response.view, _HEADER, 0

        def number() -> int:
            nonlocal at
            reader.take(4)
            at += 4
            return int.from_bytes(view[at - 4 : at], "big")

        if gives_handle:
            handle = number()
        if tag == _NO_SESSIONS:
            return Answer(handle, at, size - at, b"")
        length = number()
        reader.take(length)
        return Answer(handle, at, length, bytes(view[at + length : size]))
