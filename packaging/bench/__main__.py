# SPDX-License-Identifier: Apache-2.0
"""The benchmark's story: measure each section, print the table, write build/bench/result.json.

Exit status 0 when every target is met, 1 when one is missed, 2 for a usage error. The tests of this repository never
depend on it: they only check that every row is documented and that the parts work.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path[0:0] = [str(REPOSITORY / "tests")]

from guests.turns import every_turn  # noqa: E402 (the test machines need the path above)

from . import arithmetic, boot, page, running, sizes, tang  # noqa: E402
from .table import BOOT, CUSTODIAN, EVIDENCE, ROWS, RUNNING, SHARING, SIZE, Outcome, lines  # noqa: E402
from .tell import say  # noqa: E402

RESULT = REPOSITORY / "build/bench/result.json"
PAGE = REPOSITORY / "docs/benchmarks.md"
_ORDER = [row.name for row in ROWS]
QUIET = 1.5  # load average of the last minute, above which a figure says more about the neighbours
_PAUSE = 15.0

Measured = tuple[list[Outcome], dict[str, object]]


@dataclass(frozen=True)
class Section:
    """What is made ready beside others, and what is measured while no other machine runs on this host."""

    prepare: Callable[[], object]
    measure: Callable[[argparse.Namespace], Measured]


def _measure_evidence(options: argparse.Namespace) -> Measured:
    """Only this section takes what the tests of published vectors have."""
    from . import evidence

    return evidence.measure(options.rounds * 5)


def _measure_custodian(options: argparse.Namespace) -> Measured:
    """Only this section takes what the tests of custodians have."""
    from . import custodian

    return custodian.measure(options.rounds)


SECTIONS = {
    SHARING: Section(lambda: None, lambda options: arithmetic.measure(options.rounds * 5)),
    EVIDENCE: Section(lambda: None, _measure_evidence),
    CUSTODIAN: Section(tang.prepare, _measure_custodian),
    SIZE: Section(sizes.prepare, lambda _: sizes.measure()),
    BOOT: Section(boot.prepare, lambda options: boot.measure(options.boots)),
    RUNNING: Section(running.prepare, lambda options: running.measure(options.rounds)),
}


def main() -> int:
    """Run the sections that were asked for."""
    options = _arguments()
    if options.rows:
        print(json.dumps([vars(row) for row in ROWS], indent=2))
        return 0
    if options.write_doc:
        page.write(PAGE, json.loads(RESULT.read_text(encoding="utf-8")))
        return 0
    result = _last() if options.only else {"sections": {}}
    outcomes: list[Outcome] = []
    for name in options.only or SECTIONS:
        section, found = _measured(name, options)
        outcomes += found
        result["sections"][name] = section
        _write(result)
        print("\n".join(lines(found)), flush=True)
    outcomes.sort(key=lambda outcome: _ORDER.index(outcome.row.name))
    print("\n".join(["", *lines(outcomes)]))
    missed = [outcome.row.name for outcome in outcomes if not outcome.passed]
    say(f"missed: {', '.join(missed)}" if missed else "every target is met")
    say(f"all figures: {RESULT.relative_to(REPOSITORY)}; what they mean: docs/benchmarks.md")
    return 1 if missed else 0


def _measured(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], list[Outcome]]:
    """A section of the result, and its outcomes."""
    say(f"{name}: preparing")
    SECTIONS[name].prepare()
    with every_turn():
        _wait_for_quiet(options.wait)
        say(f"{name}: measuring")
        load, start = os.getloadavg()[0], time.monotonic()
        outcomes, information = SECTIONS[name].measure(options)
    section = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "load": round(load, 2),
        "seconds": round(time.monotonic() - start),
        "rows": [outcome.to_json() for outcome in outcomes],
        "information": information,
    }
    return section, outcomes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Speed and size against the peers, as ratios.")
    parser.add_argument("--only", action="append", choices=sorted(SECTIONS), help="one section; may be given again")
    parser.add_argument("--rounds", type=int, default=7, help="how often each opening is measured (default: 7)")
    parser.add_argument("--boots", type=int, default=5, help="how often each initramfs is booted (default: 5)")
    parser.add_argument("--wait", type=float, default=60.0, help="wait up to so many seconds for a quiet machine")
    parser.add_argument("--rows", action="store_true", help="print the rows and targets as JSON, measure nothing")
    parser.add_argument("--write-doc", action="store_true", help="put the last result into docs/benchmarks.md")
    return parser.parse_args()


def _wait_for_quiet(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (load := os.getloadavg()[0]) > QUIET and time.monotonic() < end:
        say(f"the machine is busy (load {load:.1f}); waiting")
        time.sleep(_PAUSE)


def _last() -> dict[str, Any]:
    """The last result, of which some sections are now measured again."""
    if not RESULT.exists():
        return {"sections": {}}
    result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return result


def _write(result: dict[str, Any]) -> None:
    rows = [row for section in result["sections"].values() for row in section["rows"]]
    rows.sort(key=lambda row: _ORDER.index(row["name"]))
    machine = {
        "cores": os.cpu_count(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "guests": "Debian 13, QEMU with TCG, 1 virtual CPU, 1 GiB",
    }
    complete = {"version": 1, "machine": machine, "rows": rows, "sections": result["sections"]}
    complete["passed"] = len(rows) == len(ROWS) and all(row["passed"] for row in rows)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(complete, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
