# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-snp.md has every check, and each names a test that exists and what breaks it (§4)."""

from __future__ import annotations

import pytest

from keyquorum.evidence import snp_checks, snp_policy, snp_report
from unit.evidence.check_table import CheckTable, Row
from unit.evidence.snp_maker import policy_table

TABLE = CheckTable("docs/attestation-snp.md", r"snp\.[a-z0-9.-]+")
PAGE = TABLE.page


def test_every_check_has_a_row() -> None:
    names = TABLE.names
    assert sorted(names) == sorted(name for name in snp_checks.REFERENCES if not name.startswith("policy."))
    assert len(set(names)) == len(names) > 50


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: Row) -> None:
    TABLE.assert_proven(row)


def test_constants_are_those_of_the_page() -> None:
    assert f"`{snp_policy.REFERENCE_TYPE}`" in PAGE
    for name in (*policy_table(), *snp_policy.GUEST_BITS, *snp_policy.PLATFORM_BITS):
        assert f"`{name}`" in PAGE
    for product in snp_report.PRODUCTS:
        assert f"| {product} | 0x1" in PAGE
        assert all(name in PAGE for name in snp_report.component_names(product))
