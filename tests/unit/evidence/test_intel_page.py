# SPDX-License-Identifier: Apache-2.0
"""docs/attestation-intel.md has every check, and each names a test that exists and what breaks it (§6)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyquorum.evidence import intel_certificates, intel_checks, intel_reference
from keyquorum.evidence.intel_body import XFAM_FIXED_0
from keyquorum.evidence.intel_reference import ENCLAVE_ATTRIBUTES, MEASUREMENTS, TD_ATTRIBUTES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/attestation-intel.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `((?:intel|tdx|sgx|policy)\.[a-z0-9.-]+)` \| (.+) \| ([A-Z]) `(test_\w+)` \| (.+) \|$", re.MULTILINE
)
ROWS = ROW.findall(PAGE)
FILES = dict(re.findall(r"\b([A-Z]) `(tests/[\w/]+\.py)`", PAGE))


def test_every_check_has_a_row() -> None:
    names = [row[0] for row in ROWS]
    assert sorted(names) == sorted(intel_checks.REFERENCES)
    assert len(set(names)) == len(names) > 75


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_of_a_check_exists_and_has_what_breaks_it(row: tuple[str, str, str, str, str]) -> None:
    name, _, letter, test, broken = row
    text = (ROOT / FILES[letter]).read_text(encoding="utf-8")
    assert f"\ndef {test}(" in text
    for case in re.findall(r'"([^"]+)"', broken):
        found = re.search(rf'^    "{re.escape(case)}": (.*(?:\n        .*)*)', text, re.MULTILINE)
        assert found, f"{FILES[letter]} has no case {case!r}"
        assert letter not in "AB" or f'"{name}"' in found[1], f"the case {case!r} does not break {name}"


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
