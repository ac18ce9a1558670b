# SPDX-License-Identifier: Apache-2.0
"""The TPM's device node: one command in, one answer out, never waiting beyond a deadline (docs/holders-tpm.md §3.1).

Since Linux 4.20 a non-blocking write only queues the command. The wait is by epoll and not by poll: the driver's
poll function takes the mutex that it holds while the chip works, so poll(2) would wait for a silent TPM after all.
epoll asks that function once, before the command is written, and then sleeps until the driver wakes it. The last close
of the node waits for the chip too, so a ring of the kernel's holds it from the start: whenever the process ends, that
close keeps it not a moment (docs/decisions/0053-silent-tpm.md).
"""

from __future__ import annotations

import _thread
import os
import select
import time

from keyquorum.errors import UnavailableError
from keyquorum.native import io_uring
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SOCKET = "swtpm:"  # as TSS libraries name an emulator's raw socket
_WAKE = select.EPOLLIN | select.EPOLLONESHOT
_HEADER = 10

# TPMs that went silent, with what waits for each: two threads may have asked one before either knew.
_unanswered: dict[str, list[tuple[select.epoll, tuple[int, ...]]]] = {}
_guard = _thread.allocate_lock()


class TpmDevice:
    """An open TPM. `deadline` is on the monotonic clock, in seconds."""

    def __init__(self, name: str, deadline: float) -> None:
        """Open a TPM by its path, or by "swtpm:host=ADDRESS,port=NUMBER"; raises `UnavailableError`."""
        self.name, self.deadline = name, deadline
        _refuse_silent(name)
        self.managed = os.path.basename(name).startswith("tpmrm")
        self._silent = False
        try:
            self._descriptor = _connect(name, deadline) if name.startswith(_SOCKET) else _open(name)
            self._epoll = select.epoll()
        except TimeoutError:
            raise UnavailableError(f"the TPM at {name} does not answer") from None
        except FileNotFoundError:
            raise UnavailableError(
                f"there is no TPM at {name}", "enable the TPM in the firmware setup; its driver must be loaded"
            ) from None
        except OSError as error:
            raise UnavailableError(f"the TPM at {name} cannot be opened: {error.strerror or error}") from None
        self._descriptors = (self._descriptor, *_held(self._descriptor)) if self.managed else (self._descriptor,)
        try:
            self._epoll.register(self._descriptor, 0)
        except OSError:  # a file, and no device
            self.close()
            raise UnavailableError(f"{name} is no TPM") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the device; whatever a resource manager kept for us is flushed.

        After a deadline passed, the kernel's node stays open until the chip answers or the process ends: closing it
        would wait for the chip, and the thread has a report to make (I3).
        """
        if self._silent and not self.name.startswith(_SOCKET):
            with _guard:
                _unanswered.setdefault(self.name, []).append((self._epoll, self._descriptors))
            return
        self._epoll.close()
        _close(self._descriptors)

    def transmit(self, command: bytes, response: Secret) -> int:
        """Send a command, put the answer into `response` and return its size.

        Raises `UnavailableError` when the answer is not complete at the deadline, or the device fails.
        """
        if self._silent:  # even asking the driver would now wait for the chip
            raise UnavailableError(f"the TPM at {self.name} does not answer")
        try:
            self._epoll.modify(self._descriptor, _WAKE)
            rest = memoryview(command)
            while rest:
                rest = rest[self._write(rest) :]
            return self._read(response)
        except OSError as error:
            raise UnavailableError(f"the TPM at {self.name} fails: {error.strerror or error}") from None

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # a socket whose other end does not read
            self._epoll.modify(self._descriptor, select.EPOLLOUT | select.EPOLLONESHOT)
            self._wait()
            self._epoll.modify(self._descriptor, _WAKE)
            return 0

    def _read(self, response: Secret) -> int:
        received = 0
        view = response.view
        while received < _HEADER or received < int.from_bytes(view[2:6], "big"):
            if received:  # a socket's answer may come in pieces, the kernel's never does
                self._epoll.modify(self._descriptor, _WAKE)
            self._wait()
            part = os.readv(self._descriptor, [view[received:]])
            if not part:
                raise UnavailableError(f"the TPM at {self.name} ended the connection, or answers more than it may")
            received += part
        return received

    def _wait(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0 or not self._epoll.poll(left, 1):
            self._silent = True
            raise UnavailableError(f"the TPM at {self.name} does not answer")


def _refuse_silent(name: str) -> None:
    """Ask no chip again that still owes an answer; raises `UnavailableError`.

    Whoever waits for hours, as a boot at its prompt may, would else use up all descriptors with it.
    """
    with _guard:
        waiting = _unanswered.pop(name, [])
        silent = [(epoll, descriptors) for epoll, descriptors in waiting if not epoll.poll(0)]
        if silent:
            _unanswered[name] = silent
    for epoll, descriptors in waiting:
        if (epoll, descriptors) not in silent:
            epoll.close()
            _close(descriptors)
    if silent:
        raise UnavailableError(f"the TPM at {name} still does not answer")


def _held(descriptor: int) -> tuple[int, ...]:
    """Have a ring hold an open TPM; return the ring's descriptor, or nothing where there are no rings.

    Only a resource manager's node: a raw one has one user at a time, and the next one could come before the ring went.
    """
    try:
        return (io_uring.hold(descriptor),)
    except OSError:  # forbidden or too old: a silent chip keeps the ended process, as it keeps everybody's
        return ()


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def _connect(name: str, deadline: float) -> int:
    """Connect to an emulator's socket; return its descriptor."""
    import _socket

    options = dict(part.partition("=")[::2] for part in name[len(_SOCKET) :].split(","))
    try:
        address = (options.get("host", "127.0.0.1"), int(options["port"]))
    except (KeyError, ValueError):
        raise UnavailableError(f"{name} is no TPM: swtpm:host=ADDRESS,port=NUMBER is expected") from None
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.connect(address)
        connection.setblocking(False)
        return connection.detach()
    finally:
        connection.close()
