# SPDX-License-Identifier: Apache-2.0
"""The custodian's first process: holds the sockets, keeps the workers going, shows how they are (docs §12).

It opens no key. Workers are started anew from the program, so none inherits another's memory (decision 0051).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from keyquorum import speech
from keyquorum.custodian import counters, monitor
from keyquorum.errors import KeyquorumError
from keyquorum.linux import listening, notify, run

if TYPE_CHECKING:
    from keyquorum.custodian.site import Site

_LEAST_PAUSE, _MOST_PAUSE = 0.2, 30.0  # seconds before a worker that died is started again
_HEALTHY = 60.0  # seconds after which a worker's end is no repetition
_TICK = 0.2
_GRACE = 15.0  # seconds that workers have to stop: their own ten, and a little
_PASSED_ON = ("KEYQUORUM_CONFIG", "KEYQUORUM_TRACE", "CREDENTIALS_DIRECTORY", "SOFTHSM2_CONF", "NO_COLOR", "TZDIR")


class _Place:
    """Where one worker is, or will be again."""

    def __init__(self) -> None:
        self.pid = 0
        self.since = 0.0
        self.due = 0.0
        self.pause = _LEAST_PAUSE


class Supervisor:
    """The workers of one custodian."""

    def __init__(self, site: Site, source: str = "") -> None:
        """Open the sockets. `source` is who gives evidence of what this machine runs, "" where nobody is asked."""
        self._site = site
        self._settings = site.settings()
        self._sockets = listening.activated() or [listening.bound(a.host, a.port) for a in self._settings.listen]
        self._counters_fd, self._counters = counters.make(self._settings.workers)
        self._lifeline, self._alive = os.pipe2(os.O_CLOEXEC)  # its other end closes with this process
        self._places = [_Place() for _ in range(self._settings.workers)]
        self._ever_ready = False
        self._stopping = False
        self._source = source

    def serve(self) -> int:
        """Keep the workers going until SIGTERM; raises `KeyquorumError` if they cannot even start."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)  # the pipe tells which one came
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        if self._settings.monitor is not None:
            shown = listening.bound(self._settings.monitor.host, self._settings.monitor.port)
            monitor.start(shown, self._site, self._counters)
            speech.note(f"monitoring on {listening.shown(shown)}")
        for listener in self._sockets:
            speech.note(f"listening on {listening.shown(listener)}")
        heartbeat = notify.watchdog_seconds() or _MOST_PAUSE
        try:
            while not self._stopping:
                self._tend(read_end, heartbeat)
        finally:
            self._stop()
        return 0

    def _tend(self, read_end: int, heartbeat: float) -> None:
        notify.alive()
        for row, place in enumerate(self._places):
            if not place.pid and time.monotonic() >= place.due:
                self._start(row, place)
        said = _wait(read_end, min(heartbeat, _TICK if self._waits() else heartbeat))
        if signal.SIGCHLD in said or self._waits():
            self._bury()
        if not self._ever_ready and all(self._counters.started(row) for row in range(len(self._places))):
            self._ever_ready = True
            notify.ready()
            speech.note(f"{self._settings.origin} serves, by {len(self._places)} processes")
        if signal.SIGHUP in said:
            self._reload()
        self._stopping = signal.SIGTERM in said or signal.SIGINT in said

    def _waits(self) -> bool:
        """Say whether something will have to be done without a signal."""
        return not self._ever_ready or any(not place.pid for place in self._places)

    def _start(self, row: int, place: _Place) -> None:
        words = (str(row), str(len(self._places)), str(len(self._sockets)), self._source)
        command = (sys.executable, "-s", "-S", "-P", "-m", "keyquorum.custodian.worker", self._site.directory, *words)
        passed = (self._lifeline, self._counters_fd, *(listener.fileno() for listener in self._sockets))
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._counters.over(row)
        place.pid, place.since = run.start(command, passed, environment), time.monotonic()

    def _bury(self) -> None:
        """Take note of workers that ended; one that never got ready at the first start ends everything."""
        for row, place in enumerate(self._places):
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if not pid:
                continue
            code = os.waitstatus_to_exitcode(status)
            was_ready = self._counters.started(row)
            self._counters.over(row)
            place.pid = 0
            if not self._ever_ready and not was_ready:
                raise KeyquorumError(f"a worker could not start (exit status {code})", "its reason stands above")
            if time.monotonic() - place.since > _HEALTHY:
                place.pause = _LEAST_PAUSE
            speech.warn(f"worker {row} ended with exit status {code}; another one starts in {place.pause:g} s")
            place.due = time.monotonic() + place.pause
            place.pause = min(place.pause * 2, _MOST_PAUSE)

    def _reload(self) -> None:
        notify.reloading()
        self._signal(signal.SIGHUP)
        notify.ready()

    def _signal(self, number: int) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _stop(self) -> None:
        """Have the workers end, and wait for them; the sockets are closed first, so nobody else gets in."""
        notify.stopping()
        for listener in self._sockets:
            listener.close()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for place in self._places:
            while place.pid:
                if os.waitpid(place.pid, os.WNOHANG)[0]:
                    place.pid = 0
                elif time.monotonic() > deadline:
                    os.kill(place.pid, signal.SIGKILL)
                    os.waitpid(place.pid, 0)
                    place.pid = 0
                else:
                    time.sleep(0.05)
        os.close(self._alive)


def _wait(read_end: int, seconds: float) -> bytes:
    poller = select.poll()
    poller.register(read_end, select.POLLIN)
    return os.read(read_end, 4096) if poller.poll(seconds * 1000) else b""
