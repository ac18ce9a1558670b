# SPDX-License-Identifier: Apache-2.0
"""What the runner of all tests makes of what pytest says: nothing but tests that passed counts as passed."""

from __future__ import annotations

from typing import Any

import pytest

from house.sources import program

FILES = ["tests/a/test_a.py"]
GOOD = ["..                                    [100%]\n", "2 passed in 0.02s\n"]


@pytest.fixture(scope="module")
def runner() -> Any:
    return program("packaging/run_tests.py")


def test_what_passed_is_counted_whatever_a_library_says_at_the_end(runner: Any) -> None:
    assert runner.judged(FILES, GOOD, 0) == (2, (), True)
    assert runner.judged(FILES, [*GOOD, "Exception ignored in: <function>\n"], 0) == (2, (), True)
    assert runner.judged(FILES, ["2 passed, 1 warning in 61.30s (0:01:01)\n"], 0) == (2, (), True)


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        ([".\n"], 0, "ended with 0 after 0 passed"),  # a test ended the process
        (["1 skipped in 0.01s\n"], 0, "1 were skipped"),
        (["1 passed, 1 skipped in 0.01s\n"], 0, "1 were skipped"),
        (["\n", "no tests ran in 0.01s\n"], 5, "ended with 5 after 0 passed"),
        ([".\n"], -9, "ended with -9 after 0 passed"),
        (GOOD, 1, "ended with 1 after 2 passed"),
    ],
)
def test_whoever_did_not_pass_is_named(runner: Any, said: list[str], code: int, line: str) -> None:
    _, failures, complete = runner.judged(FILES, said, code)
    assert (failures, complete) == ((f"ERROR tests/a/test_a.py: {line}",), False)


def test_failures_are_those_of_the_summary_and_no_lines_of_a_log(runner: Any) -> None:
    said = ["ERROR    root:a.py:3 logged\n", "=== short test summary info ===\n", "FAILED tests/a.py::b - why\n"]
    assert runner.judged(FILES, [*said, "1 failed, 1 passed in 0.10s\n"], 1) == (
        1,
        ("FAILED tests/a.py::b - why",),
        False,
    )
