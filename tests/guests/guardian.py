# SPDX-License-Identifier: Apache-2.0
"""Nothing outlives the tests: a tiny process that ends our children if we are killed before we could.

It reads orders from a pipe. When the pipe closes, because this process ended in whatever way, it kills the children
and removes the directories that it still knows. PR_SET_PDEATHSIG would be simpler and is wrong: it fires when the
*thread* that started the child ends, and tests start machines from threads.
"""

import atexit
import os
import subprocess
import sys
import threading

_PROGRAM = """
import os, shutil, sys
known = set()
for line in sys.stdin:
    order, kind, value = line.rstrip("\\n").split(" ", 2)
    (known.add if order == "+" else known.discard)((kind, value))
for kind, value in known:
    if kind == "process":
        try: os.kill(int(value), 9)
        except ProcessLookupError: pass
for kind, value in known:
    if kind == "directory": shutil.rmtree(value, ignore_errors=True)
"""


class _Guardian:
    """The process and its pipe; started at the first order, once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def order(self, sign: str, kind: str, value: str) -> None:
        """Send one order; a forked child gets a guardian of its own."""
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(f"{sign} {kind} {value}\n".encode())
            self._process.stdin.flush()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._owner = os.getpid()
        atexit.register(self._end)

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


_guardian = _Guardian()


def kill_later(pid: int) -> None:
    """Have the process killed if we end without sparing it."""
    _guardian.order("+", "process", str(pid))


def spare_process(pid: int) -> None:
    """The process has ended and been waited for: its number may belong to another one soon."""
    _guardian.order("-", "process", str(pid))


def remove_later(path: str) -> None:
    """Have the directory removed if we end without sparing it."""
    _guardian.order("+", "directory", path)


def spare_directory(path: str) -> None:
    """The directory is gone already."""
    _guardian.order("-", "directory", path)
