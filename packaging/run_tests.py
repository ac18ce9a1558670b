# SPDX-License-Identifier: Apache-2.0
"""Runs the tests, one part after the other, cheap ones first: `make test`, or `make PART` for one of them.

Says which part runs and how long each took. A part that fails does not keep the next from running. As many processes
run at once as there are cores; machines that emulate others gain nothing from more. Quick files are dealt out to them
beforehand; of slow ones, each process takes one after the other, so that none is idle while another has many left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
LANES = min(os.cpu_count() or 1, 4)


class Part(NamedTuple):
    """A part of the ladder: folders below tests/, and what it is about."""

    name: str
    folders: tuple[str, ...]
    about: str
    slow: bool = False


class Outcome(NamedTuple):
    """How many tests passed and failed, and whether pytest was content."""

    passed: int
    failed: int
    complete: bool


PARTS = (
    Part("unit", ("house", "unit", "vectors"), "house rules, unit tests, published vectors"),
    Part("devices", ("devices",), "emulated TPMs, software tokens, LUKS2 images"),
    Part("package", ("package",), "the Debian package, installed and removed on Debian 12 and 13"),
    Part("guests", ("guests",), "the machines that the next part boots", slow=True),
    Part("boots", ("boots",), "real boots of virtual machines", slow=True),
)


def main(names: list[str]) -> int:
    """Run the parts named, or all; return 0 when every test passed."""
    chosen = [part for part in PARTS if not names or part.name in names]
    if len(chosen) != len(names or PARTS):
        raise SystemExit(f"test: parts are {', '.join(part.name for part in PARTS)}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's `&`, and so in all that tests
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # start
    started = time.monotonic()
    results = []
    for number, part in enumerate(chosen, 1):
        print(f"test: part {number} of {len(chosen)}, {part.name}: {part.about}", flush=True)
        begun = time.monotonic()
        results.append((part, _run(part), time.monotonic() - begun))
    print()
    for part, outcome, seconds in results:
        print(f"test: {part.name:<8} {'passed' if outcome.complete else 'FAILED'} in {_length(seconds)}")
    whole = _sum([outcome for _, outcome, _ in results])
    print(f"test: {_length(time.monotonic() - started)} in all")
    print(f"test: {whole.passed} passed, {whole.failed} failed", flush=True)
    return 0 if whole.complete else 1


def _sum(outcomes: list[Outcome]) -> Outcome:
    passed, failed = sum(outcome.passed for outcome in outcomes), sum(outcome.failed for outcome in outcomes)
    return Outcome(passed, failed, complete=all(outcome.complete for outcome in outcomes))


def _run(part: Part) -> Outcome:
    folders = [REPOSITORY / "tests" / folder for folder in part.folders]
    missing = [str(folder.relative_to(REPOSITORY)) for folder in folders if not folder.is_dir()]
    if missing:
        print(f"test: {' and '.join(missing)} is missing")
        return Outcome(0, 0, complete=False)
    files = sorted(str(path.relative_to(REPOSITORY)) for folder in folders for path in folder.rglob("test_*.py"))
    shares = [[file] for file in files] if part.slow else [files[number::LANES] for number in range(LANES)]
    waiting = iter([share for share in shares if share])
    with ThreadPoolExecutor(LANES) as pool:
        return _sum(list(pool.map(_run_lane, range(1, LANES + 1), [waiting] * LANES)))


def _run_lane(number: int, waiting: Iterator[list[str]]) -> Outcome:
    """Run what waits, share by share, until nothing is left for this lane."""
    return _sum([_run_share(number, share) for share in waiting])


def _run_share(number: int, files: list[str]) -> Outcome:
    """Run some files in one process; its lines come out whole, with the lane's number before each."""
    command = [sys.executable, "-m", "pytest", "--quiet", "--durations=5", "--durations-min=10", *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYQUORUM_", "PYTEST_"))}
    last = ""
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        for line in running.stdout or ():
            print(f"{number}| {line}", end="", flush=True)
            last = line
    passed, failed = (_count(last, word) for word in ("passed", "failed|error"))
    return Outcome(passed, failed, complete=running.returncode == 0)


def _count(summary: str, words: str) -> int:
    return sum(int(found) for found in re.findall(rf"(\d+) (?:{words})", summary))


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
