# SPDX-License-Identifier: Apache-2.0
"""Every check has words, and no words are left of checks that are gone (docs/attestation-command.md §5)."""

from __future__ import annotations

import pytest

from keyquorum.evidence import explanation, hcl_appraisal, intel_checks, nitro_appraisal, snp_checks, tpm_checks
from keyquorum.evidence.words import cloud, intel_body, intel_quote, policy, snp, tpm

TABLES = (
    tpm_checks.REFERENCES, snp_checks.REFERENCES, intel_checks.REFERENCES, hcl_appraisal.OWN,
    nitro_appraisal.REFERENCES,
)  # fmt: skip
NAMES = {name for table in TABLES for name in table}
WORDS = (policy.WORDS, snp.WORDS, intel_quote.WORDS, intel_body.WORDS, tpm.WORDS, cloud.WORDS)


def test_every_check_has_words_in_one_place_and_no_words_are_left_over() -> None:
    told = [name for table in WORDS for name in table]
    assert sorted(told) == sorted(NAMES)
    assert set(explanation.REFERENCES) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_words_are_whole_sentences_that_fit_a_screen(name: str) -> None:
    found = explanation.explain(name)
    assert found.words.endswith(".")
    assert found.words[0].isupper()
    assert found.words.isprintable()
    assert 30 <= len(found.words) <= 260
    assert found.spec
    assert name not in found.words


def test_no_two_checks_of_one_technology_have_the_same_words() -> None:
    for table in WORDS:
        assert len(set(table.values())) == len(table)


def test_names_by_their_beginning() -> None:
    assert explanation.beginning_with("snp.chip.") == (
        "snp.chip.masked", "snp.chip.listed", "snp.chip.denied", "snp.chip.same",
    )  # fmt: skip
    assert explanation.beginning_with("nothing") == ()
    with pytest.raises(KeyError):
        explanation.explain("snp.chip")
