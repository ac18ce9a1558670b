# SPDX-License-Identifier: Apache-2.0
"""A real TPM emulator (swtpm) for a test, behind its raw socket; and a proxy that listens, alters or swallows."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

PORT_TRIES = 20
PORTS = (20000, 32000)  # below what the kernel takes for outgoing connections

Change = Callable[[bytes, bytes], bytes | None]


def free_ports() -> int:
    """Return a port on the loopback such that it and the next one are free.

    It is one that the kernel gives to no connection of its own accord, or the TPM would lose it in a power cycle.
    """
    while True:
        port = random.randrange(*PORTS, 2)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Emulator:
    """One TPM with a state of its own. `stop` and `start` are a power cycle: PCRs begin anew, keys stay."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def device(self) -> str:
        """The name that `linux.tpm_device` and TSS libraries know it by."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def start(self) -> None:
        """Switch it on and wait until it listens, at the ports that it had before."""
        had = self.port
        for _ in range(PORT_TRIES):
            self.port = had or free_ports()
            if self._listens():
                return
            time.sleep(0.5)  # somebody else took one of them meanwhile
        raise AssertionError(f"swtpm finds no port to listen at, the last one tried was {self.port}")

    def _listens(self) -> bool:
        program = shutil.which("swtpm")
        assert program, "swtpm is not installed"
        self._process = subprocess.Popen(
            [
                program,
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={self.directory}",
                "--server",
                f"type=tcp,port={self.port},bindaddr=127.0.0.1",
                "--ctrl",
                f"type=tcp,port={self.port + 1},bindaddr=127.0.0.1",
                "--flags",
                "not-need-init,startup-clear",
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None:
                    return False
                time.sleep(0.01)
            else:
                return True
        raise AssertionError("swtpm does not listen")

    def stop(self) -> None:
        """Switch it off."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """Power-cycle it."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


class Proxy:
    """Somebody on the bus between a TPM and its user.

    `change(command, response)` returns what the user gets to see, or None for silence. `before(command)` returns
    what the TPM gets instead of the command. Everything that passed is in `commands` and `responses`; `left` is set
    once a user has gone and all that it sent has passed.
    """

    def __init__(self, emulator: Emulator, change: Change | None = None) -> None:
        self.change: Change = change or (lambda _command, response: response)
        self.before: Callable[[bytes], bytes] = lambda command: command
        self.commands: list[bytes] = []
        self.responses: list[bytes] = []
        self._target = ("127.0.0.1", emulator.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.device = f"swtpm:host=127.0.0.1,port={self._server.getsockname()[1]}"
        self._ended, self.left = threading.Event(), threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                user, _ = self._server.accept()
            except OSError:
                return
            with user, socket.create_connection(self._target) as tpm:
                try:
                    self._relay(user, tpm)
                except OSError:
                    continue
                finally:
                    self.left.set()

    def _relay(self, user: socket.socket, tpm: socket.socket) -> None:
        self._tpm = tpm
        while command := _message(user):
            response = self.ask(self.before(command))
            self.commands.append(command)
            self.responses.append(response)
            changed = self.change(command, response)
            if changed is not None:
                user.sendall(changed)

    def ask(self, command: bytes) -> bytes:
        """Send a command to the TPM, beside those of the user."""
        self._tpm.sendall(command)
        return _message(self._tpm)

    def close(self) -> None:
        """Stop listening."""
        self._ended.set()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _message(connection: socket.socket) -> bytes:
    """Read one whole command or response; empty when the other end is gone."""
    data = b""
    while len(data) < 10 or len(data) < int.from_bytes(data[2:6], "big"):
        part = connection.recv(4096)
        if not part:
            return b""
        data += part
    return data
