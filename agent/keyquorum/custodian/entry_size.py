# SPDX-License-Identifier: Apache-2.0
"""Entries that are made are small enough for their receipts to be sent (docs/custodian.md §9.1). Pure.

A decision whose checks do not fit is a denial: nobody could be shown by what rules something was released.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyquorum.custodian.entry import DECISION, MAX_CHECKS, RELEASE
from keyquorum.evidence.result import Check, Outcome

if TYPE_CHECKING:
    from keyquorum.custodian.entry import Entry, Written

MAX_MADE = 30 * 1024  # bytes; base64, proof and checkpoint make at most 44 KiB of it, which an answer has room for
_NAME, _SPEC = "entry.size", "docs/custodian.md §9.1"


def fitting(draft: Entry) -> Written:
    """Write the entry as it stands if it fits, else a refusal that does, with the first check that failed.

    Only decisions and refusals have checks; every other entry is of a size that its parts bound.
    """
    written = draft.written()
    size = len(written.body)
    if size <= MAX_MADE and len(draft.checks) <= MAX_CHECKS:
        return written
    expected, actual = f"at most {MAX_MADE} bytes and {MAX_CHECKS} checks", f"{size} and {len(draft.checks)}"
    too_large = Check(name=_NAME, spec=_SPEC, expected=expected, actual=actual, outcome=Outcome.FAILED)
    if draft.act == "denied" or draft.kind not in {DECISION, RELEASE}:  # a refusal by itself
        first = tuple(check for check in draft.checks if check.outcome is Outcome.FAILED)[:1]
        short = replace(draft, checks=(*first, too_large)).written()
        return short if len(short.body) <= MAX_MADE else replace(draft, checks=(too_large,)).written()
    reason = f"{_NAME}: expected {expected}, found {actual}"
    return replace(draft, kind=DECISION, act="denied", reason=reason, checks=(too_large,)).written()
