# SPDX-License-Identifier: Apache-2.0
"""Commands and files in a running guest, over a virtio-serial port (guest_agent.py is the other end)."""

import itertools
import os
import shlex
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guests.errors import CommandError, MachineEndedError, NotInTimeError
from guests.guest_agent import frame, read_frame
from guests.guest_file import File
from guests.tools import tail

PORT_NAME = "org.keyquorum.guests.agent"
SECONDS_TO_SEND = 120.0
SLACK = 20.0  # what the way there and back may cost beyond the command's own time
_HERE = os.path.dirname(os.path.abspath(__file__))


def _own(name: str, mode: int = 0o644) -> File:
    with open(os.path.join(_HERE, name), "rb") as file:
        return File(file.read(), mode)


AGENT_FILES = {
    "/usr/local/lib/guests/guest_agent.py": _own("guest_agent.py"),
    "/etc/systemd/system/guest-agent.service": _own("guest_agent.service"),
    "/etc/systemd/system/local-fs.target.d/guest-agent.conf": File(b"[Unit]\nWants=guest-agent.service\n", 0o644),
}


@dataclass(frozen=True)
class Finished:
    """How a command in the guest ended; the code is negative for a signal."""

    code: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        """The output as text without the last line end."""
        return self.output.decode(errors="replace").rstrip("\n")


@dataclass
class _Answer:
    there: threading.Event = field(default_factory=threading.Event)
    header: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


class Job:
    """A command on its way; `wait` gives its end."""

    def __init__(self, agent: "Agent", number: int, command: str, timeout: float) -> None:
        self._agent, self._number, self.command, self.timeout = agent, number, command, timeout

    @property
    def done(self) -> bool:
        """Whether the answer is here already."""
        return self._agent.answered(self._number)

    def wait(self, *, check: bool = True, timeout: float | None = None) -> Finished:
        """The end of the command; with `check`, any other code than 0 is CommandError."""
        header, body = self._agent.collect(self._number, timeout or self.timeout + SLACK, self.command)
        size = header.get("output", 0)
        finished = Finished(header["code"], body[:size], body[size:])
        said = f"{tail(finished.output)}\n{tail(finished.errors)}\n{header.get('error', '')}".strip()
        if header.get("late"):
            raise NotInTimeError(
                f"in the guest, `{self.command}` ran longer than {self.timeout:g} s and was killed\n{said}"
            )
        if check and finished.code != 0:
            raise CommandError(f"in the guest, `{self.command}` ended with {finished.code}\n{said}")
        return finished


class Agent:
    """The host's end of the channel. `explain` adds what the console says to messages about silence."""

    def __init__(self, channel: socket.socket, explain: Callable[[], str]) -> None:
        self._channel = channel
        self._explain = explain
        self._numbers = itertools.count(1)
        self._open: dict[int, _Answer] = {}
        self._sending = threading.Lock()
        limit = struct.pack("ll", int(SECONDS_TO_SEND), 0)  # a guest that is not up yet reads nothing
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._reader = threading.Thread(target=self._read, daemon=True, name="guest agent")
        self._reader.start()

    def start(
        self, command: str | Sequence[str], *, timeout: float, data: bytes = b"", env: Mapping[str, str] | None = None
    ) -> Job:
        """Send a command; text goes through `sh -c`, a sequence is run as it is. It may wait for the guest to be up."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        shown = command if isinstance(command, str) else shlex.join(command)
        number = self._send({"do": "run", "argv": argv, "timeout": timeout, "env": dict(env or {})}, data)
        return Job(self, number, shown, timeout)

    def ping(self, *, timeout: float) -> None:
        """Wait until the guest's end answers."""
        self._checked(self._send({"do": "ping"}, b""), timeout, "ping")

    def put(self, path: str, content: bytes, *, mode: int, timeout: float) -> None:
        """Write a file in the guest."""
        number = self._send({"do": "put", "path": path, "mode": mode}, content)
        self._checked(number, timeout, f"put {path}")

    def get(self, path: str, *, timeout: float) -> bytes:
        """Read a file in the guest."""
        return self._checked(self._send({"do": "get", "path": path}, b""), timeout, f"get {path}")

    def answered(self, number: int) -> bool:
        """Whether the answer to a request has come."""
        return self._open[number].there.is_set()

    def collect(self, number: int, timeout: float, what: str) -> tuple[dict[str, Any], bytes]:
        """Wait for the answer to a request."""
        answer = self._open[number]
        if not answer.there.wait(timeout):
            raise NotInTimeError(f"no answer from the guest to `{what}` within {timeout:g} s{self._explain()}")
        del self._open[number]
        if not answer.header:
            raise MachineEndedError(f"the machine ended during `{what}`{self._explain()}")
        return answer.header, answer.body

    def close(self) -> None:
        """End the channel; whoever still waits is told."""
        self._channel.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._channel.close()

    def _checked(self, number: int, timeout: float, what: str) -> bytes:
        header, body = self.collect(number, timeout, what)
        if header["code"] != 0:
            raise CommandError(f"in the guest, `{what}` failed: {header.get('error')}")
        return body

    def _send(self, request: dict[str, Any], body: bytes) -> int:
        number = next(self._numbers)
        self._open[number] = _Answer()
        try:
            with self._sending:
                self._channel.sendall(frame({**request, "id": number}, body))
        except BlockingIOError:
            raise NotInTimeError(f"the guest does not read its command channel{self._explain()}") from None
        except OSError:
            raise MachineEndedError(f"the machine has ended{self._explain()}") from None
        return number

    def _read(self) -> None:
        try:
            while True:
                header, body = read_frame(self._channel.fileno())
                answer = self._open.get(header["id"])
                if answer is not None:  # else somebody gave up waiting for it
                    answer.header, answer.body = header, body
                    answer.there.set()
        except (OSError, EOFError):
            for answer in list(self._open.values()):
                answer.there.set()
