# SPDX-License-Identifier: Apache-2.0
"""What was decided about a request: granted, refused, or waiting for people, with every rule (docs/custodian.md §4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.result import Check
    from keyquorum.evidence.tpm_attest import ClockInfo

RELEASED, DENIED, PENDING = "released", "denied", "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision: `act` is one of the three words, a pending one waits for `within` seconds.

    `checks` are the rules with expected and actual, `facts` go into the log entry, `evidence` is kept beside it.
    `clock` are the counters of a trusted quote, behind which the machine's next one may not go.
    """

    act: str
    reason: str
    checks: tuple[Check, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    within: int = 0
    evidence: bytes = b""
    clock: ClockInfo | None = None
