# SPDX-License-Identifier: Apache-2.0
"""docs/attestation.md has every check, and each names a test that exists and what breaks it (§5)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyquorum.evidence import reference_values, result, tpm_checks
from keyquorum.evidence.tpm_wire import BANKS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `((?:tpm|policy)\.[a-z.-]+)` \| (.+) \| ([A-Z]) `(test_\w+)`.* \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)
FILES = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))


def test_every_check_has_a_row() -> None:
    names = [row[0] for row in ROWS]
    assert sorted(names) == sorted(tpm_checks.REFERENCES)
    assert len(set(names)) == len(names) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: tuple[str, str, str, str, str]) -> None:
    _, _, letter, test, broken = row
    text = (ROOT / FILES[letter]).read_text(encoding="utf-8")
    assert f"\ndef {test}(" in text
    for case in re.findall(r'"([^"]+)"', broken):
        assert f'"{case}": ' in text, f"{FILES[letter]} has no case {case!r}"


def test_what_a_story_needs_is_a_check() -> None:
    assert frozenset(tpm_checks.REFERENCES) >= tpm_checks.QUOTE
    assert frozenset(tpm_checks.REFERENCES) - tpm_checks.QUOTE - tpm_checks.KEYS == {"tpm.pcr.unjudged"}
    assert not tpm_checks.QUOTE & tpm_checks.KEYS


def test_constants_are_those_of_the_page() -> None:
    assert f"`{result.RESULT_TYPE}`" in PAGE
    assert f"`{reference_values.REFERENCE_TYPE}`" in PAGE
    for word in (*result.Status, *result.Outcome, *BANKS):
        assert f'"{word}"' in PAGE
    for name in result.AttestationResult.__slots__:
        assert f"| `{name}` |" in PAGE
