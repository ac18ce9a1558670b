# SPDX-License-Identifier: Apache-2.0
"""Entries of the audit log: who did what to which fragment, when and why (docs/custodian.md §9).

One canonical JSON form, hashed as it stands. An entry has places for names, numbers and hashes only, and for the
checks of a decision: there is none where a secret would fit unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence.result import MAX_TEXT, Check, Outcome, printable
from keyquorum.model import fragment_name, strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.model.fragment_name import FragmentName

VERSION = 1
MAX_ENTRY = 32 * 1024
MAX_CHECKS = 64
MAX_TIME = 1 << 40  # seconds since 1970
MAX_NUMBER = 1 << 53
_WHAT = "the log entry"

CHALLENGE, DECISION, RELEASE, APPROVAL, ADMINISTRATION = (
    "challenge",
    "decision",
    "release",
    "approval",
    "administration",
)
ACTS: dict[str, tuple[str, ...]] = {
    CHALLENGE: ("issued", "refused"),
    DECISION: ("denied", "pending"),
    RELEASE: ("released",),
    APPROVAL: ("approved", "refused"),
    ADMINISTRATION: (
        "founded",
        "enrolled-machine",
        "revoked-machine",
        "deposited",
        "retired",
        "settings",
        "restored",
        "cosigned",
        "fork-seen",
    ),
}
ROLES = ("machine", "owner", "operator", "witness", "custodian", "unknown")
# What an entry may note beside its fixed fields, each a name, a number or a hash.
FACTS = frozenset(
    {
        *("nonce-sha256", "recipient-sha256", "evidence-sha256", "policy-sha256", "sealed-sha256", "identity-sha256"),
        *("attestation", "address", "region", "country", "operator", "version", "checkpoint-size", "checkpoint-root"),
        *("pending", "operator-envelope-sha256"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acted: role, name, and SHA-256 of the key or certificate that showed it, in hexadecimal ("" for none)."""

    role: str
    name: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry. `number` counts from 0, `at` is in seconds since 1970; `machine` is whom it is about ("" for none)."""

    number: int
    at: int
    kind: str
    act: str
    who: Actor
    machine: str = ""
    fragment: FragmentName | None = None
    reason: str = ""
    checks: tuple[Check, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def serialise(self) -> bytes:
        """Write the canonical form; raises `ValueError` for an entry that no reader would take."""
        table: dict[str, object] = {
            "version": VERSION,
            "number": self.number,
            "at": self.at,
            "kind": self.kind,
            "act": self.act,
            "who": {"role": self.who.role, "name": printable(self.who.name), "key": self.who.key},
            "machine": self.machine,
            "fragment": self.fragment.to_json() if self.fragment else None,
            "reason": printable(self.reason) if self.reason else "",
            "checks": [check_table(check) for check in self.checks],
            "facts": {name: printable(value) for name, value in self.facts.items()},
        }
        data = strict_json.serialise(table)
        try:
            parse(data)
        except TamperingError as problem:
            raise ValueError(problem.message) from None
        return data


def check_table(check: Check) -> dict[str, str]:
    """Return the JSON form of a check."""
    return {name: str(getattr(check, name)) for name in ("name", "spec", "expected", "actual", "outcome")}


def take_checks(fields: Fields, name: str) -> tuple[Check, ...]:
    """Read a list of checks."""
    found = []
    for index, value in enumerate(fields.rows(name, most=MAX_CHECKS)):
        row = fields.row(name, index, value)
        found.append(
            Check(
                name=row.name("name", longest=64),
                spec=row.text("spec"),
                expected=row.text("expected"),
                actual=row.text("actual"),
                outcome=Outcome(row.choice("outcome", tuple(Outcome))),
            )
        )
        row.finish()
    return tuple(found)


def parse(data: bytes) -> Entry:
    """Read an entry; raises `TamperingError`, also for one that is not in the canonical form."""
    value = strict_json.parse(data, _WHAT, MAX_ENTRY, TamperingError)
    fields = Fields(value, _WHAT, TamperingError)
    fields.version(VERSION)
    kind = fields.choice("kind", tuple(ACTS))
    found = Entry(
        number=fields.integer("number", 0, MAX_NUMBER),
        at=fields.integer("at", 0, MAX_TIME),
        kind=kind,
        act=fields.choice("act", ACTS[kind]),
        who=_actor(fields.table("who")),
        machine=optional_text(fields, "machine"),
        fragment=_fragment(fields),
        reason=optional_text(fields, "reason"),
        checks=take_checks(fields, "checks"),
        facts=_facts(fields.table("facts")),
    )
    fields.finish()
    if strict_json.serialise(value) != data:
        raise TamperingError(_WHAT, "", "is not in the canonical form")
    return found


def optional_text(fields: Fields, name: str) -> str:
    """Take a printable text that may be empty."""
    value = fields.take(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value == "" or value.isprintable()):
        fields.fail(name, f"must be a printable text of at most {MAX_TEXT} characters")
    return value


def _actor(fields: Fields) -> Actor:
    role, name, key = fields.choice("role", ROLES), fields.text("name"), optional_text(fields, "key")
    if key and (len(key) != 64 or not frozenset("0123456789abcdef").issuperset(key)):
        fields.fail("key", "must be empty or a SHA-256 in hexadecimal")
    fields.finish()
    return Actor(role=role, name=name, key=key)


def _fragment(fields: Fields) -> FragmentName | None:
    if not fields.has("fragment"):
        fields.take("fragment")
        return None
    table = fields.table("fragment")
    found = fragment_name.take(table)
    table.finish()
    return found


def _facts(fields: Fields) -> dict[str, str]:
    found = {}
    for name in fields.names():
        if name not in FACTS:
            fields.fail(printable(name)[:40], "is not a fact that entries note")
        found[name] = fields.text(name)
    return found
