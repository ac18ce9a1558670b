# SPDX-License-Identifier: Apache-2.0
"""Runs the tests, one part after the other, cheap ones first: `make test`, or `make PART` for one of them.

Says which part runs and how long each took. A part that fails does not keep the next from running; a test that is
skipped, and a folder without tests, is a failure. As many processes run at once as there are cores; machines that
emulate others gain nothing from more. Quick files are dealt out to them beforehand; of slow ones, each process takes
one after the other. None is idle while there is anything left, be it of the next part.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
LANES = min(os.cpu_count() or 1, 4)
# Begun first, so that nobody waits for their end; no two of them by making the same machine.
LONGEST = tuple(f"tests/boots/test_{name}.py" for name in ("custodians", "readme"))
# pytest's last line but for what libraries say after it.
_SUMMARY = re.compile(r"(?:\d+ [a-z]+(?:, )?)+ in [\d.]+s.*\n")
_FAILED = ("FAILED ", "ERROR ")
STACKS = ("-o", "faulthandler_timeout=900")  # seconds, longer than any test takes: then where it hangs is printed


class Part(NamedTuple):
    """A part of the ladder: folders below tests/, and what it is about."""

    name: str
    folders: tuple[str, ...]
    about: str
    slow: bool = False


class Outcome(NamedTuple):
    """How many tests passed, pytest's line about each that did not, and whether pytest was content."""

    passed: int
    failures: tuple[str, ...]
    complete: bool


PARTS = (
    Part("unit", ("house", "unit", "vectors", "fuzz"), "house rules, unit tests, published vectors"),
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
    running = [Running(part, number, len(chosen)) for number, part in enumerate(chosen, 1)]
    waiting = iter([(one, share) for one in running for share in one.shares])
    with ThreadPoolExecutor(LANES) as pool:
        try:
            list(pool.map(_run_lane, range(1, LANES + 1), [waiting] * LANES))
        except KeyboardInterrupt:
            list(waiting)  # nothing is left to begin; pytest was interrupted by the same keys
            raise
    print()
    for one in running:
        print(f"test: {one.part.name:<8} {'passed' if one.outcome.complete else 'FAILED'} in {_length(one.seconds)}")
    whole = _sum([one.outcome for one in running])
    print("".join(f"test: {line}\n" for line in whole.failures), end="")
    print(f"test: {_length(time.monotonic() - started)} in all")
    print(f"test: {whole.passed} passed, {len(whole.failures)} failed", flush=True)
    return 0 if whole.complete else 1


class Running:
    """A part on its way: what of it each process runs in one go, from when to when, and what came of it."""

    def __init__(self, part: Part, number: int, count: int) -> None:
        self.part, self._title = part, f"test: part {number} of {count}, {part.name}: {part.about}"
        self._begun = self._ended = 0.0
        self._lock = threading.Lock()
        found = {folder: list((REPOSITORY / "tests" / folder).rglob("test_*.py")) for folder in part.folders}
        empty = tuple(f"ERROR tests/{folder} has no tests" for folder, paths in found.items() if not paths)
        self.outcome = Outcome(0, empty, complete=not empty)
        relative = (str(path.relative_to(REPOSITORY)) for paths in found.values() for path in paths)
        files = sorted(relative, key=lambda file: (file not in LONGEST, file))
        shares = [[file] for file in files] if part.slow else [files[number::LANES] for number in range(LANES)]
        self.shares = [share for share in shares if share]

    @property
    def seconds(self) -> float:
        """From the begin of its first share to the end of its last; parts overlap."""
        return self._ended - self._begun

    def run(self, lane: int, share: list[str]) -> None:
        """Run a share, in this process's lane."""
        with self._lock:
            if not self._begun:
                self._begun = time.monotonic()
                print(self._title, flush=True)
        outcome = _run_share(lane, share)
        with self._lock:
            self.outcome = _sum([self.outcome, outcome])
            self._ended = time.monotonic()


def _sum(outcomes: list[Outcome]) -> Outcome:
    return Outcome(
        sum(outcome.passed for outcome in outcomes),
        tuple(line for outcome in outcomes for line in outcome.failures),
        complete=all(outcome.complete for outcome in outcomes),
    )


def _run_lane(number: int, waiting: Iterator[tuple[Running, list[str]]]) -> None:
    """Run what waits, share by share, until nothing is left for this lane."""
    for one, share in waiting:
        one.run(number, share)


def _run_share(number: int, files: list[str]) -> Outcome:
    """Run some files in one process; its lines come out whole, with the lane's number before each."""
    command = [sys.executable, "-m", "pytest", "--quiet", "--durations=5", "--durations-min=10", *STACKS, *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYQUORUM_", "PYTEST_"))}
    environment["BUILD_NUMBER"] = "1"  # by this pytest knows that nobody's screen is too narrow for what it says
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        said = []
        for line in running.stdout or ():
            print(f"{number}| {line}", end="", flush=True)
            said.append(line)
    return judged(files, said, running.returncode)


def judged(files: list[str], said: list[str], code: int) -> Outcome:
    """What pytest's lines and exit code say of some files. No tests, or some that were skipped, is no success.

    A test may end the process, with whatever code: then there is no summary.
    """
    summary = next((line for line in reversed(said) if _SUMMARY.fullmatch(line)), "")
    passed, skipped = _counted(summary, "passed"), _counted(summary, "skipped")
    failures = [line.rstrip() for line in _after(said, "short test summary info") if line.startswith(_FAILED)]
    complete = code == 0 and passed > 0 and not skipped and not failures
    if not complete and not failures:
        why = f"{skipped} were skipped" if skipped else f"ended with {code} after {passed} passed"
        failures.append(f"ERROR {' '.join(files)}: {why}")
    return Outcome(passed, tuple(failures), complete)


def _counted(summary: str, word: str) -> int:
    found = re.search(rf"(\d+) {word}", summary)
    return int(found[1]) if found else 0


def _after(lines: list[str], words: str) -> list[str]:
    """The lines behind the last one with these words; none if there is none."""
    at = max((number for number, line in enumerate(lines) if words in line), default=len(lines))
    return lines[at + 1 :]


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
