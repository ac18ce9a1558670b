# SPDX-License-Identifier: Apache-2.0
"""Splitting and combining 64 bytes: agent/keyquorum/sharing against shamir_anchor.c, all in loops, turn by turn.

The rows compare with C that takes 32 bytes at a time, as sss does, which the targets were set by. The same C with 64
bytes at a time is measured beside it, for information.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyquorum.sharing import shamir

from .table import BY_NAME, Outcome, Sample

SIZE = 64
_HERE = os.path.dirname(os.path.abspath(__file__))
_COMPILER = ["gcc", "-O3", "-Wall", "-Wextra", "-Werror"]
WORDS = {"32 lanes": "uint32_t", "64 lanes": "uint64_t"}


@dataclass(frozen=True)
class Scheme:
    """How many calls make one measurement: some 5 ms on either side."""

    threshold: int
    total: int
    calls: int
    anchor_calls: int

    @property
    def name(self) -> str:
        """As in the table's rows."""
        return f"{self.threshold}-of-{self.total}"

    def quorums(self, shares: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """Different quorums in turn: share numbers decide how much work their weights are."""
        if self.total < 10:
            return [list(chosen) for chosen in itertools.combinations(shares, self.threshold)]
        return [list(chosen) for chosen in (shares[: self.threshold], shares[-self.threshold :], shares[::2])]


SCHEMES = (Scheme(3, 5, 1000, 4000), Scheme(128, 255, 6, 6))


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """The four rows, and for information the wider C, and what the very first call costs."""
    outcomes, first, wider = [], dict[str, object](), dict[str, object]()
    with tempfile.TemporaryDirectory() as directory:
        anchors = {lanes: compiled(directory, lanes) for lanes in WORDS}
        for scheme in SCHEMES:
            sides: dict[str, dict[str, list[float]]] = {}
            for anchor in anchors.values():
                prove_interoperation(anchor, scheme)
            for _ in range(rounds):
                _time_ours(scheme, sides.setdefault("ours", {"split": [], "combine": []}))
                for lanes, anchor in anchors.items():
                    _time_anchor(anchor, scheme, sides.setdefault(lanes, {"split": [], "combine": []}))
            for what in ("split", "combine"):
                row = BY_NAME[f"{what}-{scheme.name}"]
                ours, narrow, wide = (Sample(tuple(sides[side][what])) for side in ("ours", *WORDS))
                outcomes.append(Outcome(row, ours, narrow))
                wider[row.name] = {"µs": round(wide.median, 2), "ratio": round(ours.median / wide.median, 2)}
            first[scheme.name] = _first_calls(scheme)
    information = {"C with 64 lanes": wider, "first call of a process, µs": first}
    return outcomes, {"python": sys.version.split()[0], **information}


def compiled(directory: str, lanes: str, source: str = os.path.join(_HERE, "shamir_anchor.c")) -> str:
    """The anchor's program with one of WORDS."""
    anchor = os.path.join(directory, f"anchor-{WORDS[lanes]}")
    subprocess.run([*_COMPILER, f"-DWORD={WORDS[lanes]}", "-o", anchor, source], check=True)
    return anchor


def prove_interoperation(anchor: str, scheme: Scheme) -> None:
    """Each side combines what the other has split; AssertionError when they do not mean the same."""
    secret = _random(SIZE)
    encoded = secret.to_bytes(SIZE, "little").hex()
    words = [str(scheme.threshold), str(scheme.total)]
    printed = _run([anchor, "split", *words], encoded).split()
    theirs = [(number, int.from_bytes(bytes.fromhex(share), "little")) for number, share in enumerate(printed, 1)]
    ours = list(enumerate(shamir.split(secret, SIZE, scheme.threshold, scheme.total, _random), 1))
    for quorum in scheme.quorums(theirs):
        assert shamir.combine(quorum, SIZE) == secret, "keyquorum does not combine the anchor's shares"
    for quorum in scheme.quorums(ours):
        lines = "".join(f"{number} {value.to_bytes(SIZE, 'little').hex()}\n" for number, value in quorum)
        assert _run([anchor, "combine"], lines).strip() == encoded, "the anchor does not combine keyquorum's shares"


def _time_ours(scheme: Scheme, into: dict[str, list[float]]) -> None:
    """One measurement of each, in µs a call."""
    secret, threshold, total = _random(SIZE), scheme.threshold, scheme.total
    quorums = scheme.quorums(list(enumerate(shamir.split(secret, SIZE, threshold, total, _random), 1)))
    rotation = list(itertools.islice(itertools.cycle(quorums), scheme.calls))
    for quorum in quorums:
        shamir.combine(quorum, SIZE)

    def split() -> None:
        for _ in rotation:
            shamir.split(secret, SIZE, threshold, total, _random)

    def combine() -> None:
        for quorum in rotation:
            shamir.combine(quorum, SIZE)

    into["split"].append(_seconds(split) / len(rotation) * 1e6)
    into["combine"].append(_seconds(combine) / len(rotation) * 1e6)


def _time_anchor(anchor: str, scheme: Scheme, into: dict[str, list[float]]) -> None:
    """One measurement of each, timed in C, in µs a call."""
    words = [str(scheme.threshold), str(scheme.total), str(scheme.anchor_calls), "1"]
    for line in _run([anchor, "time", *words], "").splitlines():
        what, nanoseconds = line.split()
        into[what].append(float(nanoseconds) / 1e3)


def _first_calls(scheme: Scheme) -> dict[str, float]:
    """What a fresh process pays for its only split and its only combination: nothing public is known yet."""
    program = (
        "import os, sys, time\n"
        "from keyquorum.sharing import shamir\n"
        "random = lambda n: int.from_bytes(os.urandom(n), 'little')\n"
        "clock = time.perf_counter\n"
        "k, n = int(sys.argv[1]), int(sys.argv[2])\n"
        "secret, a = random(64), clock()\n"
        "shares = shamir.split(secret, 64, k, n, random)\n"
        "b = clock()\n"
        "assert shamir.combine(list(enumerate(shares, 1))[-k:], 64) == secret\n"
        "print(b - a, clock() - b)\n"
    )
    argv = [sys.executable, "-c", program, str(scheme.threshold), str(scheme.total)]
    agent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(shamir.__file__))))
    times = [_run(argv, "", {"PYTHONPATH": agent}).split() for _ in range(5)]
    split, combine = (min(float(pair[place]) for pair in times) for place in (0, 1))
    return {"split": round(split * 1e6, 1), "combine": round(combine * 1e6, 1)}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _random(count: int) -> int:
    return int.from_bytes(os.urandom(count), "little")


def _run(argv: list[str], data: str, more: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv, input=data, stdout=subprocess.PIPE, check=True, text=True, env={**os.environ, **(more or {})}
    )
    return done.stdout
