# SPDX-License-Identifier: Apache-2.0
"""The table of checks on a page of docs/: each names a test that exists, and what breaks it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]


class Row(NamedTuple):
    """A check: what it demands, the letter of a test file and a test in it, and vectors or cases that break it."""

    name: str
    demanded: str
    letter: str
    test: str
    broken: str

    @property
    def cases(self) -> list[str]:
        """The cases of the test, which stand in quotation marks."""
        return re.findall(r'"([^"]+)"', self.broken)


class CheckTable:
    """The rows of a page whose names match `names`; `behind` matches what may follow a test's name."""

    def __init__(self, page: str, names: str, behind: str = "") -> None:
        self.page = (ROOT / page).read_text(encoding="utf-8")
        row = rf"^\| `({names})` \| (.+) \| ([A-Z]) `(test_\w+)`{behind} \| (.+) \|$"
        self.rows = [Row(*found) for found in re.findall(row, self.page, re.MULTILINE)]
        self.names = [row.name for row in self.rows]
        self._files: dict[str, str] = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", self.page))

    def source(self, row: Row) -> str:
        """The file of a row's test, which must be in it."""
        text = (ROOT / self._files[row.letter]).read_text(encoding="utf-8")
        assert f"\ndef {row.test}(" in text, f"{self._files[row.letter]} has no {row.test}"
        return text

    def assert_proven(self, row: Row) -> None:
        """The test of a check exists, and has the cases that break it."""
        text = self.source(row)
        for case in row.cases:
            assert f'"{case}": ' in text, f"{self._files[row.letter]} has no case {case!r}"
