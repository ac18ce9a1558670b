# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-snp.md has every check, and each names a test that exists and what breaks it (§4)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyquorum.evidence import snp_checks, snp_policy, snp_report
from unit.evidence.snp_maker import policy_table

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation-snp.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(snp\.[a-z0-9.-]+)` \| (.+) \| ([A-Z]) `(test_\w+)` \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)
FILES = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))


def test_every_check_has_a_row() -> None:
    names = [row[0] for row in ROWS]
    assert sorted(names) == sorted(name for name in snp_checks.REFERENCES if not name.startswith("policy."))
    assert len(set(names)) == len(names) > 50


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: tuple[str, str, str, str, str]) -> None:
    _, _, letter, test, broken = row
    text = (ROOT / FILES[letter]).read_text(encoding="utf-8")
    assert f"\ndef {test}(" in text
    for case in re.findall(r'"([^"]+)"', broken):
        assert f'"{case}": ' in text, f"{FILES[letter]} has no case {case!r}"


def test_constants_are_those_of_the_page() -> None:
    assert f"`{snp_policy.REFERENCE_TYPE}`" in PAGE
    for name in (*policy_table(), *snp_policy.GUEST_BITS, *snp_policy.PLATFORM_BITS):
        assert f"`{name}`" in PAGE
    for product in snp_report.PRODUCTS:
        assert f"| {product} | 0x1" in PAGE
        assert all(name in PAGE for name in snp_report.component_names(product))
