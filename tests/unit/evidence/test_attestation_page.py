# SPDX-License-Identifier: Apache-2.0
"""docs/attestation.md has every check, and each names a test that exists and what breaks it (§5)."""

from __future__ import annotations

import pytest

from keyquorum.evidence import reference_values, result, tpm_checks
from keyquorum.evidence.tpm_wire import BANKS
from unit.evidence.check_table import CheckTable, Row

TABLE = CheckTable("docs/attestation.md", r"(?:tpm|policy)\.[a-z.-]+", behind=".*")
PAGE = TABLE.page


def test_every_check_has_a_row() -> None:
    names = TABLE.names
    assert sorted(names) == sorted(tpm_checks.REFERENCES)
    assert len(set(names)) == len(names) > 40


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: Row) -> None:
    TABLE.assert_proven(row)


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
