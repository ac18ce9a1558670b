# SPDX-License-Identifier: Apache-2.0
"""Every check that there is, in words and with the place where it is demanded (docs/attestation-command.md §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keyquorum.evidence import hcl_appraisal, nitro_appraisal
from keyquorum.evidence.words import cloud, intel_body, intel_quote, policy, snp, tpm

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCES: Mapping[str, str] = {**hcl_appraisal.REFERENCES, **nitro_appraisal.REFERENCES}
_WORDS = policy.WORDS | snp.WORDS | intel_quote.WORDS | intel_body.WORDS | tpm.WORDS | cloud.WORDS


class Explanation(NamedTuple):
    """A check: what it asks and what it is good for, and the specification that demands it."""

    name: str
    words: str
    spec: str


def explain(name: str) -> Explanation:
    """Explain a check; raises `KeyError` for a name that no check has."""
    return Explanation(name, _WORDS[name], REFERENCES[name])


def beginning_with(start: str) -> tuple[str, ...]:
    """Return the names of checks that begin so, in the order in which the checks are made."""
    return tuple(name for name in REFERENCES if name.startswith(start))
