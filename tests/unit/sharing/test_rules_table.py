# SPDX-License-Identifier: Apache-2.0
"""Every rule of docs/sharing.md §5 names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_rule_has_its_test() -> None:
    page = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
    rows = [row for row in page.partition("## §5")[2].partition("## §6")[0].splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 13
    for row in rows:
        file = ""
        named = re.findall(r"`([\w/.]*)::(\w+)`", row)
        assert named, row
        for path, test in named:
            file = path or file
            folder = ROOT if file.startswith("tests/") else ROOT / "tests/unit/sharing"
            assert f"\ndef {test}(" in (folder / file).read_text(encoding="utf-8"), f"{file}::{test}"
