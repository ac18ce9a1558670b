# SPDX-License-Identifier: Apache-2.0
"""Words of a TPM's refusals that need no TPM."""

from __future__ import annotations

import pytest

from keyquorum.holders import tpm_refusal


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (7200, "2 hours"), (3600, "hour"), (600, "10 minutes"), (60, "minute"), (86400, "day"), (172800, "2 days"),
        (1000, "1000 seconds"), (90, "90 seconds"), (0, "0 seconds"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_the_largest_unit_that_fits(seconds: int, words: str) -> None:
    assert tpm_refusal._span(seconds) == words


def test_every_pcr_that_firmware_or_a_system_uses_has_a_meaning() -> None:
    assert set(range(17)) | {23} == set(tpm_refusal._MEANINGS)
