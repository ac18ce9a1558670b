# SPDX-License-Identifier: Apache-2.0
"""QEMU's control channel: commands with answers, and the events that come between."""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from guests.errors import MachineEndedError, NotInTimeError, QmpError

ANSWER_SECONDS = 300.0


class Qmp:
    """One control connection. `explain` adds what QEMU and the console said to messages."""

    def __init__(self, line: socket.socket, explain: Callable[[], str]) -> None:
        self._line = line
        self._explain = explain
        self._news = threading.Condition()
        self._calling = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True, name="qmp")
        self._reader.start()

    def call(self, command: str, arguments: dict[str, Any], *, timeout: float = ANSWER_SECONDS) -> Any:
        """Run one command; its result, or QmpError."""
        number = next(self._numbers)
        request = json.dumps({"execute": command, "arguments": arguments, "id": number}).encode()
        try:
            with self._calling:
                self._line.sendall(request)
        except OSError:
            raise MachineEndedError(f"QEMU ended before `{command}`{self._explain()}") from None
        with self._news:
            if not self._news.wait_for(lambda: number in self._answers or self._closed, timeout):
                raise NotInTimeError(f"QEMU did not answer `{command}` within {timeout:g} s{self._explain()}")
            if number not in self._answers:
                raise MachineEndedError(f"QEMU ended during `{command}`{self._explain()}")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise QmpError(f"QEMU refused `{command}` {arguments}: {answer['error']['desc']}")
        return answer["return"]

    @property
    def events(self) -> int:
        """How many events have been seen: the `since` of a later wait."""
        with self._news:
            return len(self._events)

    def wait_event(self, name: str, *, timeout: float, since: int = 0, **data: Any) -> dict[str, Any]:
        """The data of the first event, seen or to come, with this name and (at least) this data."""

        def found() -> dict[str, Any] | None:
            for event in self._events[since:]:
                said: dict[str, Any] = event.get("data", {})
                if event["event"] == name and data.items() <= said.items():
                    return said
            return None

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._closed, timeout)
            event = found()
        if event is None:
            why = "QEMU ended before the" if self._closed else f"within {timeout:g} s there was no"
            raise NotInTimeError(f"{why} event {name} {data}{self._explain()}")
        return event

    def close(self) -> None:
        """End the connection (not QEMU)."""
        self._line.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._line.close()

    def _read(self) -> None:
        for message in self._messages():
            with self._news:
                if "event" in message:
                    self._events.append(message)
                elif "id" in message:
                    self._answers[message["id"]] = message
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _messages(self) -> Iterator[dict[str, Any]]:
        pending = b""
        while True:
            try:
                chunk = self._line.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            pending += chunk
            *lines, pending = pending.split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
