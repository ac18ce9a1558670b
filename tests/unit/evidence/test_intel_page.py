# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-intel.md has every check, and each names a test that exists and what breaks it (§6)."""

from __future__ import annotations

import re

import pytest

from keyquorum.evidence import intel_certificates, intel_checks, intel_reference
from keyquorum.evidence.intel_body import XFAM_FIXED_0
from keyquorum.evidence.intel_reference import ENCLAVE_ATTRIBUTES, MEASUREMENTS, TD_ATTRIBUTES
from unit.evidence.check_table import CheckTable, Row

TABLE = CheckTable("docs/attestation-intel.md", r"(?:intel|tdx|sgx|policy)\.[a-z0-9.-]+")
PAGE = TABLE.page


def test_every_check_has_a_row() -> None:
    names = TABLE.names
    assert sorted(names) == sorted(intel_checks.REFERENCES)
    assert len(set(names)) == len(names) > 75


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: Row) -> None:
    text = TABLE.source(row)
    for case in row.cases:
        found = re.search(rf'^    "{re.escape(case)}": (.*(?:\n        .*)*)', text, re.MULTILINE)
        assert found, f"{row.test} has no case {case!r}"
        assert row.letter not in "AB" or f'"{row.name}"' in found[1], f"the case {case!r} does not break {row.name}"


def test_what_a_story_needs_is_a_check() -> None:
    both = intel_checks.TD | intel_checks.ENCLAVE
    assert both == frozenset(intel_checks.REFERENCES)
    assert not any(name.startswith("sgx.") for name in intel_checks.TD)
    assert not any(name.startswith("tdx.") for name in intel_checks.ENCLAVE)


def test_constants_are_those_of_the_page() -> None:
    (root,) = intel_certificates.INTEL_ROOTS
    assert f"{root.hex()[:8]}…{root.hex()[-4:]}" in PAGE
    assert f"`{intel_reference.INTEL_TYPE}`" in PAGE
    assert f"none beyond 0x{XFAM_FIXED_0:X}" in PAGE
    for name, (bit, safe) in TD_ATTRIBUTES.items():
        assert f"| `tdx.attributes.{name}` | bit {bit} is {'on' if safe else 'off'} |" in PAGE
    for name, (bit, _) in ENCLAVE_ATTRIBUTES.items():
        assert f"| `sgx.attributes.{name}` | bit {bit} is off |" in PAGE
    for name in MEASUREMENTS:
        assert f"`tdx.{name}`" in PAGE
