# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-checklist.md: every check is in some line; each line's checks, test and cases exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from keyquorum.evidence import explanation

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation-checklist.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))
LINES = {"common": 6, "SNP": 10, "Intel": 9, "Nitro": 6, "TPM": 7, "Azure": 4}


class Line(NamedTuple):
    """A line of the checklist."""

    name: str
    checks: tuple[str, ...]
    letter: str
    test: str
    broken: str


def lines() -> list[Line]:
    row = r"^\| (\w+ \d+) \| [^|]+ \| ([^|]+) \| ([A-Z]) `(test_\w+)` \| ([^|]+) \|$"
    return [
        Line(name, tuple(re.findall(r"`([^`]+)`", checks)), letter, test, broken)
        for name, checks, letter, test, broken in re.findall(row, PAGE, re.MULTILINE)
    ]


FOUND = lines()


def expanded(name: str) -> tuple[str, ...]:
    if name.endswith("*"):
        return explanation.beginning_with(name.removesuffix("*"))
    return (name,) if name in explanation.REFERENCES else ()


def test_every_line_is_there_once_and_in_order() -> None:
    assert [line.name for line in FOUND] == [
        f"{part} {at}" for part, most in LINES.items() for at in range(1, most + 1)
    ]
    assert PAGE.count("\n| ") == len(FOUND) + len(LINES)  # nothing that the pattern overlooks


def test_every_check_is_in_some_line() -> None:
    named = {check for line in FOUND for name in line.checks for check in expanded(name)}
    assert named == set(explanation.REFERENCES)


@pytest.mark.parametrize("line", FOUND, ids=lambda line: line.name)
def test_checks_test_and_cases_of_a_line_exist(line: Line) -> None:
    assert line.checks
    for name in line.checks:
        assert expanded(name), f"no check is called {name}"
    text = (ROOT / FILES[line.letter]).read_text(encoding="utf-8")
    assert f"\ndef {line.test}(" in text
    for case in re.findall(r'"([^"]+)"', line.broken):
        assert f'"{case}": ' in text, f"{FILES[line.letter]} has no case {case!r}"
    assert line.broken.strip()


def test_every_file_that_is_named_has_a_line() -> None:
    assert {line.letter for line in FOUND} == set(FILES)
