# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-azure.md has every check, and each names a test that exists and what breaks it (§3)."""

from __future__ import annotations

import re
from pathlib import Path

from keyquorum.evidence import hcl_appraisal, hcl_policy
from unit.evidence.test_hcl import TABLE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation-azure.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(hcl\.[a-z.-]+)` \| (.+) \| ([A-Z]) `(test_\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
FILES = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))


def test_every_check_has_a_row_whose_test_exists() -> None:
    assert [row[0] for row in ROWS] == list(hcl_appraisal.OWN)
    for _, _, letter, test, broken in ROWS:
        text = (ROOT / FILES[letter]).read_text(encoding="utf-8")
        assert f"\ndef {test}(" in text
        for case in re.findall(r'"([^"]+)"', broken):
            assert f'"{case}": ' in text, case


def test_constants_are_those_of_the_page() -> None:
    assert f"`{hcl_policy.REFERENCE_TYPE}`" in PAGE
    assert f'"{hcl_appraisal.TECHNOLOGY}"' in PAGE
    for name in TABLE:
        assert f"`{name}`" in PAGE
