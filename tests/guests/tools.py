# SPDX-License-Identifier: Apache-2.0
"""Programs on the host: short ones that are run to their end, and long ones that live beside a machine."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence

from guests import guardian
from guests.errors import ToolError

LINES_OF_ERROR = 40
SECONDS_TO_DIE = 120.0  # who waits for a disk of a busy host cannot die before it answers
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def environment() -> dict[str, str]:
    """What host programs see: a fixed path and language, and the settings that reach a mirror through a proxy."""
    passed = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**_ENVIRONMENT, **passed}


def run(argv: Sequence[str], *, timeout: float = 120.0, data: bytes = b"") -> bytes:
    """Run a program to its end and give its output; one that fails or is late raises with the end of its errors."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    with process:
        guardian.kill_later(process.pid)
        try:
            output, errors = process.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise ToolError(f"`{shlex.join(argv)}` ran longer than {timeout:g} s\n{tail(errors)}") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            process.wait()
            guardian.spare_process(process.pid)
    if process.returncode != 0:
        raise ToolError(f"`{shlex.join(argv)}` ended with {process.returncode}\n{tail(output)}\n{tail(errors)}")
    return output


def tail(text: bytes, lines: int = LINES_OF_ERROR) -> str:
    """The last lines of what a program said."""
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])


class Companion:
    """A program that lives beside a machine (QEMU, swtpm); ended by its process id and always waited for."""

    def __init__(self, argv: Sequence[str], *, log: str, keep_open: Sequence[int] = ()) -> None:
        self.argv = list(argv)
        self.log = log
        with open(log, "ab") as sink:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment(),
                pass_fds=tuple(keep_open),
                start_new_session=True,
            )
        self.pid = self._process.pid
        guardian.kill_later(self.pid)

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative for a signal), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """Wait for the end; TimeoutError if it does not come."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.argv[0]} (pid {self.pid}) still runs after {timeout:g} s") from None

    def signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it now, stopped or not, and collect it."""
        self._process.kill()
        self._process.wait(SECONDS_TO_DIE)
        guardian.spare_process(self.pid)

    def said(self, lines: int = LINES_OF_ERROR) -> str:
        """The end of what it wrote."""
        with open(self.log, "rb") as log:
            return tail(log.read(), lines)


@contextlib.contextmanager
def companion(argv: Sequence[str], *, log: str, keep_open: Sequence[int] = ()) -> Iterator[Companion]:
    """A companion for the length of a block."""
    process = Companion(argv, log=log, keep_open=keep_open)
    try:
        yield process
    finally:
        process.kill()
