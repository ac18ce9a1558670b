# SPDX-License-Identifier: Apache-2.0
"""Releases of a custodian beside recoveries of a tang server: as many askers, on this machine, turn by turn.

A release is two exchanges over TLS 1.3 with both certificates, a fresh quote that is verified, the owner's policy, an
identity opened and sealed anew, and an entry of the log that is on the disk before the answer leaves. A recovery is one
exchange over HTTP and one multiplication on P-521. Processes that ask are part of what is timed, on both sides.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from devices.custodian_site import Wire
from guests.tools import companion
from keyquorum.custodian.site import Site
from keyquorum.custodian.store_listing import counts

from . import fleet, tang
from .asking import Asker
from .recovering import Recovery
from .table import BY_NAME, Outcome, Sample
from .tell import say

AT_ONCE = 8  # processes that ask
MACHINES = 384  # no machine may ask so often that its pace is limited (docs/custodian.md §10)
ON_ONE = 16  # releases on one connection, where connections are used again
SECONDS = 2.0  # for one side of one round
_READY_SECONDS = 60.0
_PATIENCE = 60.0
_FORK = multiprocessing.get_context("fork")


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """The two rows; AssertionError if an answer is none, or if the log has another number of releases."""
    with tempfile.TemporaryDirectory() as directory, tang.activated_tang(tang.prepare()) as tang_port:
        say(f"enrolling {MACHINES} machines")
        site, members = fleet.make(directory, MACHINES)
        with custodian(site, directory) as port:
            fleet.prove(Wire(site, port, None), members[0])
            machines = [Asker(member, port) for member in members]
            recovery = Recovery(tang_port)
            found: dict[str, list[float]] = {"release": [], "release-reused": [], "tang": []}
            sides = {
                "release": _Releasing(machines, 1),
                "tang": _Recovering(recovery),
                "release-reused": _Releasing(machines, ON_ONE),
            }
            with contextlib.ExitStack() as begun:
                for side in sides.values():
                    begun.enter_context(side)
                for number in range(rounds + 1):
                    for name, side in sides.items():
                        milliseconds = side.turn()
                        if number:  # the first round only warms caches
                            found[name].append(milliseconds)
            released = sum(side.done for side in sides.values() if isinstance(side, _Releasing)) + 1
        with contextlib.closing(site.open_for_reading(site.settings())) as store:
            counted = counts(store)["releases"]
            assert counted == released, f"{released} releases were answered, the log has {counted}"
    peer = Sample(tuple(found["tang"]))
    outcomes = [Outcome(BY_NAME[name], Sample(tuple(found[name])), peer) for name in ("release", "release-reused")]
    return outcomes, {"at once": AT_ONCE, "releases": released, "machines": MACHINES}


@contextlib.contextmanager
def custodian(site: Site, directory: str) -> Iterator[int]:
    """`keyquorum custodian serve` for the length of the block; gives its port on the loopback."""
    log = os.path.join(directory, "said")
    argv = ["env", f"KEYQUORUM_CONFIG={directory}/none", f"PYTHONPATH={os.pathsep.join(sys.path)}", sys.executable]
    argv += ["-m", "keyquorum.cli.main", "custodian", "serve", "--directory", site.directory]
    with companion(argv, log=log) as server:
        end = time.monotonic() + _READY_SECONDS
        while " serves, by " not in server.said():
            if server.exit_code is not None or time.monotonic() > end:
                raise RuntimeError(f"the custodian does not serve\n{server.said()}")
            time.sleep(0.05)
        yield int(re.findall(r"listening on 127\.0\.0\.1:(\d+)", server.said())[0])


class _Side:
    """What some processes do at the same time, for some seconds; they are started once, before anything is timed."""

    def __init__(self) -> None:
        self.done = 0
        self._counts: Any = _FORK.Array("q", AT_ONCE)
        self._meet = _FORK.Barrier(AT_ONCE + 1)
        self._processes = [_FORK.Process(target=self._take_turns, args=(row,), daemon=True) for row in range(AT_ONCE)]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._meet.abort()  # whoever waits for another turn ends
        for process in self._processes:
            process.join(_PATIENCE)

    def turn(self) -> float:
        """Return the milliseconds between two that were done, whoever did them."""
        try:
            self._meet.wait(_PATIENCE)
            begun = time.monotonic()
            self._meet.wait(SECONDS + _PATIENCE)
        except threading.BrokenBarrierError:
            raise AssertionError("an asker failed") from None
        seconds, done = time.monotonic() - begun, sum(self._counts)
        self.done += done
        return float(seconds * 1000 / done)

    def _take_turns(self, row: int) -> None:
        try:
            while True:
                self._meet.wait()
                self._counts[row] = self.work(row, time.monotonic() + SECONDS)
                self._meet.wait()
        except threading.BrokenBarrierError:
            return
        finally:
            self._meet.abort()

    def work(self, _row: int, end: float) -> int:
        """Work until `end`; return how many were done."""
        raise NotImplementedError


class _Releasing(_Side):
    def __init__(self, machines: Sequence[Asker], on_one: int) -> None:
        super().__init__()
        self._machines, self._on_one = machines, on_one
        self._connections = 0  # that this process has made: it goes on with the machine that was silent longest

    def work(self, _row: int, end: float) -> int:
        done = 0
        mine = self._machines[_row::AT_ONCE]
        while time.monotonic() < end:
            machine = mine[self._connections % len(mine)]
            self._connections += 1
            with machine.connect() as connection:
                for number in range(self._on_one):
                    machine.release(connection, last=number + 1 == self._on_one)
                    done += 1
        return done


class _Recovering(_Side):
    def __init__(self, recovery: Recovery) -> None:
        super().__init__()
        self._recovery = recovery

    def work(self, _row: int, end: float) -> int:
        done = 0
        while time.monotonic() < end:
            self._recovery.recover()
            done += 1
        return done
