# SPDX-License-Identifier: Apache-2.0
"""Operators' answers to requests that wait: signed, for one request at one custodian, for a while (§6).

Who may answer is in the release policy, with their keys, so that nobody becomes an operator by a custodian's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian.entry import MAX_NUMBER, MAX_TIME, optional_text
from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

APPROVAL_TYPE = "application/vnd.keyquorum.approval.v1+json"
VERSION = 1
MAX_ENVELOPE = 8 * 1024
CLOCK_SKEW = 300  # seconds that an operator's clock may be ahead
APPROVE, REFUSE = "approve", "refuse"
_WHAT = "the approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An answer. `entry` is the leaf hash of the pending entry, `at` in seconds since 1970."""

    custodian: str
    number: int
    entry: bytes
    operator: str
    answer: str
    at: int
    reason: str = ""

    def payload(self) -> bytes:
        """Return what the operator signs, as `APPROVAL_TYPE`."""
        return strict_json.serialise(
            {
                "version": VERSION,
                "custodian": self.custodian,
                "number": self.number,
                "entry": self.entry.hex(),
                "operator": self.operator,
                "answer": self.answer,
                "at": self.at,
                "reason": self.reason,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What is waited for: at which custodian, which entry (number and leaf hash)."""

    custodian: str
    number: int
    entry: bytes


def verify(
    envelope: bytes, operators: Mapping[str, dsse.PublicKey], pending: Pending, now: int, within: int
) -> Approval:
    """Return the answer if it counts at the instant `now`; raises `TamperingError` saying why it does not.

    `operators` are those whom the release policy names, `within` how many seconds an answer is good for.
    """
    table = strict_json.parse(envelope, _WHAT, MAX_ENVELOPE, TamperingError)
    parsed = dsse.parse(table, _WHAT)
    found = parse(dsse.verify(parsed, APPROVAL_TYPE, tuple(operators.values())))
    key = operators.get(found.operator)
    if key is None:
        raise TamperingError(_WHAT, "operator", f"{found.operator} is none of {', '.join(operators) or 'nobody'}")
    dsse.verify(parsed, APPROVAL_TYPE, (key,))  # one operator's key does not speak for another
    for name, expected, actual in (
        ("custodian", pending.custodian, found.custodian),
        ("number", str(pending.number), str(found.number)),
        ("entry", pending.entry.hex(), found.entry.hex()),
    ):
        if expected != actual:
            raise TamperingError(_WHAT, name, f"is {actual}, not {expected}")
    if found.at > now + CLOCK_SKEW:
        raise TamperingError(_WHAT, "at", f"is of the future: {found.at}, and now is {now}")
    if now - found.at >= within:
        raise TamperingError(_WHAT, "at", f"is {now - found.at} s old, and counts for {within}")
    return found


def parse(payload: bytes) -> Approval:
    """Read the payload of an envelope that was verified; raises `TamperingError`."""
    fields = Fields.read(payload, _WHAT, MAX_ENVELOPE, TamperingError)
    fields.version(VERSION)
    found = Approval(
        custodian=fields.text("custodian", longest=128),
        number=fields.integer("number", 0, MAX_NUMBER),
        entry=fields.hexadecimal("entry", 32),
        operator=fields.name("operator"),
        answer=fields.choice("answer", (APPROVE, REFUSE)),
        at=fields.integer("at", 0, MAX_TIME),
        reason=optional_text(fields, "reason"),
    )
    fields.finish()
    return found
