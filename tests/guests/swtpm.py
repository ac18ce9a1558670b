# SPDX-License-Identifier: Apache-2.0
"""TPMs: a state directory that lives as long as the chip would, and a process for each boot.

swtpm ends with the machine it serves, so each boot starts it anew on the same state, as power does to a chip.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from guests import tools
from guests.errors import ToolError
from guests.places import run_directory

SETUP_SECONDS = 120.0
READY_SECONDS = 20.0
PORT_TRIES = 20


@dataclass(frozen=True)
class TpmState:
    """The memory of one TPM 2.0: seeds, NV indices, endorsement certificate."""

    directory: str

    @classmethod
    def create(cls, directory: str) -> "TpmState":
        """A new chip with an endorsement key and certificate."""
        os.makedirs(directory)
        where = os.path.abspath(directory)
        argv = ["swtpm_setup", "--tpm2", "--tpmstate", where, "--create-ek-cert", "--overwrite"]
        tools.run(argv, timeout=SETUP_SECONDS)
        return cls(where)

    def clone(self, directory: str) -> "TpmState":
        """A copy in another directory: a chip with the same keys and the same past, as an attacker with a copy has."""
        shutil.copytree(self.directory, directory, ignore=shutil.ignore_patterns("*.log", ".lock"))
        return TpmState(os.path.abspath(directory))

    @property
    def log(self) -> str:
        """What swtpm wrote, over all starts."""
        return os.path.join(self.directory, "swtpm.log")


class RunningTpm:
    """swtpm while it runs."""

    def __init__(self, process: tools.Companion) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fall_silent(self) -> None:
        """Stop answering in the middle of whatever it does (SIGSTOP)."""
        self._process.signal(signal.SIGSTOP)

    def come_back(self) -> None:
        """Go on as if nothing had been (SIGCONT)."""
        self._process.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Lose power."""
        self._process.kill()


@contextlib.contextmanager
def tpm_for_machine(state: TpmState) -> Iterator[tuple[RunningTpm, socket.socket]]:
    """swtpm on one end of a socket pair; the other end is for QEMU's `tpm-crb`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control = f"type=unixio,clientfd={theirs.fileno()}"
        argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state.directory}", "--ctrl", control, "--terminate"]
        with tools.companion(argv, log=state.log, keep_open=[theirs.fileno()]) as process:
            theirs.close()
            yield RunningTpm(process), ours


@contextlib.contextmanager
def tpm_on_loopback(state: TpmState) -> Iterator[tuple[RunningTpm, str]]:
    """swtpm without a machine, and the TCTI by which libraries and tools on this host reach it."""
    for _ in range(PORT_TRIES):
        port = _two_free_ports()
        with _listening(state, port) as process:
            if process is not None:
                yield RunningTpm(process), f"swtpm:host=127.0.0.1,port={port}"
                return
    with open(state.log, "rb") as log:
        raise ToolError(f"swtpm found no port to listen on\n{tools.tail(log.read())}")


@contextlib.contextmanager
def _listening(state: TpmState, port: int) -> Iterator[tools.Companion | None]:
    """swtpm on this port and the next; None if somebody else took one of them meanwhile."""
    with run_directory() as directory, contextlib.ExitStack() as stack:
        fifo = os.path.join(directory, "pid")
        os.mkfifo(fifo)
        told = stack.enter_context(open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb"))
        argv = [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state.directory}", "--flags", "startup-clear"),
            *("--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}", "--pid", f"file={fifo}"),
        ]
        process = stack.enter_context(tools.companion(argv, log=state.log))
        ended = stack.enter_context(open(os.pidfd_open(process.pid), "rb"))
        # swtpm tells its pid once it listens, and ends if it cannot.
        ready, _, _ = select.select([told, ended], [], [], READY_SECONDS)
        yield process if told in ready else None


def _two_free_ports() -> int:
    """The TCTI expects the control channel one port above the commands."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
