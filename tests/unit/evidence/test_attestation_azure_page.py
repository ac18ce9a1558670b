# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-azure.md has every check, and each names a test that exists and what breaks it (§3)."""

from __future__ import annotations

from keyquorum.evidence import hcl_appraisal, hcl_policy
from unit.evidence.check_table import CheckTable
from unit.evidence.test_hcl import TABLE

CHECKS = CheckTable("docs/attestation-azure.md", r"hcl\.[a-z.-]+")
PAGE = CHECKS.page


def test_every_check_has_a_row_whose_test_exists() -> None:
    assert CHECKS.names == list(hcl_appraisal.OWN)
    for row in CHECKS.rows:
        CHECKS.assert_proven(row)


def test_constants_are_those_of_the_page() -> None:
    assert f"`{hcl_policy.REFERENCE_TYPE}`" in PAGE
    assert all(f'"{technology}"' in PAGE for technology in hcl_appraisal.REQUIRED)
    for name in TABLE:
        assert f"`{name}`" in PAGE
