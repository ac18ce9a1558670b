# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-nitro.md has every check, and each names a test that exists and what breaks it (§3)."""

from __future__ import annotations

from keyquorum.evidence import nitro_appraisal, nitro_policy
from unit.evidence.check_table import CheckTable
from unit.evidence.nitro_maker import TABLE

CHECKS = CheckTable("docs/attestation-nitro.md", r"nitro\.[a-z.-]+")
PAGE = CHECKS.page


def test_every_check_has_a_row_whose_test_exists() -> None:
    assert CHECKS.names == [name for name in nitro_appraisal.REFERENCES if not name.startswith("policy.")]
    for row in CHECKS.rows:
        CHECKS.assert_proven(row)


def test_constants_are_those_of_the_page() -> None:
    assert f"`{nitro_policy.REFERENCE_TYPE}`" in PAGE
    for name in TABLE:
        assert f"`{name}`" in PAGE
    assert "0 (image), 1 (kernel), 2 (application), 3 (role), 4 (instance) and 8 (signer" in PAGE
    assert nitro_policy.NAMED == (0, 1, 2, 3, 4, 8)
