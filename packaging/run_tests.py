# SPDX-License-Identifier: Apache-2.0
"""Runs the tests, one part after the other, cheap ones first: `make test`, or `make PART` for one of them.

Says which part runs and how long each took. A part that fails does not keep the next from running.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent


class Part(NamedTuple):
    """A part of the ladder: folders below tests/, and what it is about."""

    name: str
    folders: tuple[str, ...]
    about: str


PARTS = (
    Part("unit", ("house", "unit", "vectors"), "house rules, unit tests, published vectors"),
    Part("devices", ("devices",), "emulated TPMs, software tokens, LUKS2 images"),
    Part("package", ("package",), "the Debian package, installed and removed on Debian 12 and 13"),
    Part("guests", ("guests",), "the machines that the next part boots"),
    Part("boots", ("boots",), "real boots of virtual machines"),
)


def main(names: list[str]) -> int:
    """Run the parts named, or all; return 0 when every test passed."""
    chosen = [part for part in PARTS if not names or part.name in names]
    if len(chosen) != len(names or PARTS):
        raise SystemExit(f"test: parts are {', '.join(part.name for part in PARTS)}")
    started = time.monotonic()
    results = []
    for number, part in enumerate(chosen, 1):
        print(f"test: part {number} of {len(chosen)}, {part.name}: {part.about}", flush=True)
        begun = time.monotonic()
        passed = _run(part)
        results.append((part, passed, time.monotonic() - begun))
    print()
    for part, passed, seconds in results:
        print(f"test: {part.name:<8} {'passed' if passed else 'FAILED'} in {_length(seconds)}")
    print(f"test: {_length(time.monotonic() - started)} in all", flush=True)
    return 0 if all(passed for _, passed, _ in results) else 1


def _run(part: Part) -> bool:
    folders = [f"tests/{folder}" for folder in part.folders]
    missing = [folder for folder in folders if not (REPOSITORY / folder).is_dir()]
    if missing:
        print(f"test: {' and '.join(missing)} is missing")
        return False
    command = [sys.executable, "-m", "pytest", "--quiet", "--durations=5", "--durations-min=10", *folders]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYQUORUM_", "PYTEST_"))}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode == 0


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
