# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-nitro.md has every check, and each names a test that exists and what breaks it (§3)."""

from __future__ import annotations

import re
from pathlib import Path

from keyquorum.evidence import nitro_appraisal, nitro_policy
from unit.evidence.nitro_maker import TABLE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation-nitro.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(nitro\.[a-z.-]+)` \| (.+) \| ([A-Z]) `(test_\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
FILES = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))


def test_every_check_has_a_row_whose_test_exists() -> None:
    assert [row[0] for row in ROWS] == [name for name in nitro_appraisal.REFERENCES if not name.startswith("policy.")]
    for _, _, letter, test, broken in ROWS:
        text = (ROOT / FILES[letter]).read_text(encoding="utf-8")
        assert f"\ndef {test}(" in text
        for case in re.findall(r'"([^"]+)"', broken):
            assert f'"{case}": ' in text, case


def test_constants_are_those_of_the_page() -> None:
    assert f"`{nitro_policy.REFERENCE_TYPE}`" in PAGE
    for name in TABLE:
        assert f"`{name}`" in PAGE
    assert "0 (image), 1 (kernel), 2 (application), 3 (role), 4 (instance) and 8 (signer" in PAGE
    assert nitro_policy.NAMED == (0, 1, 2, 3, 4, 8)
