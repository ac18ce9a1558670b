# SPDX-License-Identifier: Apache-2.0
"""Entries of the audit log: who did what to which fragment, when and why (docs/custodian.md §9).

One canonical JSON form, hashed as it stands. An entry has places for names, numbers and hashes only, and for the
checks of a decision: there is none where a secret would fit unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence.result import MAX_TEXT, Check, Outcome, check_text, printable
from keyquorum.model import fragment_name, strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.model.fragment_name import FragmentName

VERSION = 1
MAX_ENTRY = 32 * 1024
MAX_CHECKS = 64
MAX_TIME = 1 << 40  # seconds since 1970
MAX_NUMBER = 1 << 53
_WHAT = "the log entry"
_CHECK_FIELDS = frozenset(Check._fields)
_TEXTS = frozenset((str, Outcome))
_OUTCOMES = {str(outcome): outcome for outcome in Outcome}
_CHECKS = "checks"
_REMEMBERED = 2048  # checks that a reader takes, by all that they say
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_MAX_NAME = 64

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
        "offered-enrolment",
        "admitted-owner",
        "revoked-machine",
        "renewed-machine",
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
        *("pending", "operator-envelope-sha256", "reference-sha256", "token-sha256"),
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

    def _table(self) -> dict[str, Any]:
        """Return the JSON form but for the checks."""
        return {
            "version": VERSION,
            "number": self.number,
            "at": self.at,
            "kind": self.kind,
            "act": self.act,
            "who": {"role": self.who.role, "name": printable(self.who.name), "key": self.who.key},
            "machine": self.machine,
            "fragment": self.fragment.to_json() if self.fragment else None,
            "reason": printable(self.reason) if self.reason else "",
            "facts": {name: printable(value) for name, value in self.facts.items()},
        }

    def written(self) -> Written:
        """Write the canonical form, unchecked."""
        table = self._table()
        return Written(self, table, strict_json.serialise_around(table, _CHECKS, map(check_text, self.checks)))

    def serialise(self) -> bytes:
        """Write the canonical form; raises `ValueError` for an entry that no reader would take."""
        return self.written().checked()


@dataclass(frozen=True, slots=True)
class Written:
    """An entry, its JSON form but for the checks as a table, and the bytes that are hashed."""

    entry: Entry
    table: dict[str, Any]
    body: bytes

    def checked(self) -> bytes:
        """Return the bytes; raises `ValueError` for an entry that no reader would take."""
        if len(self.body) > MAX_ENTRY:
            raise ValueError(f"an entry of {len(self.body)} bytes is more than the {MAX_ENTRY} allowed")
        if len(self.entry.checks) > MAX_CHECKS:
            raise ValueError(f"an entry with {len(self.entry.checks)} checks has more than the {MAX_CHECKS} allowed")
        try:
            # As its readers will; that they get this table out of these bytes is what JSON is for.
            _read({**self.table, _CHECKS: []})
            for check in self.entry.checks:
                _demand_readable(check)
        except TamperingError as problem:
            raise ValueError(problem.message) from None
        return self.body


def administration(
    act: str,
    who: Actor,
    at: int,
    machine: str,
    *,
    fragment: FragmentName | None = None,
    reason: str = "",
    facts: Mapping[str, str] | None = None,
) -> Entry:
    """Draft an entry of an administrative act."""
    return Entry(
        number=0,
        at=at,
        kind=ADMINISTRATION,
        act=act,
        who=who,
        machine=machine,
        fragment=fragment,
        reason=reason,
        facts=facts or {},
    )


def take_checks(fields: Fields, name: str) -> tuple[Check, ...]:
    """Read a list of checks."""
    rows = fields.rows(name, most=MAX_CHECKS)
    return tuple(_plain_check(row) or _check(fields.row(name, index, row)) for index, row in enumerate(rows))


@lru_cache(_REMEMBERED)
def _demand_readable(check: Check) -> None:
    """Return if a reader takes a check; raises `TamperingError`. Only those that are taken are remembered."""
    row = check._asdict()
    if _plain_check(row) is None:
        _check(Fields(row, _WHAT, TamperingError, _CHECKS))


def _plain_check(row: Any) -> Check | None:
    """Return a check that has nothing wrong; of every other row the reader of fields says what is."""
    if not isinstance(row, dict) or row.keys() != _CHECK_FIELDS:
        return None
    values = [row[name] for name in Check._fields]
    if not (_TEXTS.issuperset(map(type, values)) and all(values) and "".join(values).isprintable()):
        return None
    name, spec, expected, actual, word = values
    outcome = _OUTCOMES.get(word)
    if outcome is None or max(map(len, values)) > MAX_TEXT or len(name) > _MAX_NAME or not _NAME.issuperset(name):
        return None
    return Check(name, spec, expected, actual, outcome)


def _check(row: Fields) -> Check:
    found = Check(
        name=row.name("name", longest=_MAX_NAME),
        spec=row.text("spec"),
        expected=row.text("expected"),
        actual=row.text("actual"),
        outcome=Outcome(row.choice("outcome", tuple(Outcome))),
    )
    row.finish()
    return found


def parse(data: bytes) -> Entry:
    """Read an entry; raises `TamperingError`, also for one that is not in the canonical form."""
    value = strict_json.parse(data, _WHAT, MAX_ENTRY, TamperingError)
    found = _read(value)
    if strict_json.serialise(value) != data:
        raise TamperingError(_WHAT, "", "is not in the canonical form")
    return found


def _read(value: Any) -> Entry:
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
        checks=take_checks(fields, _CHECKS),
        facts=_facts(fields.table("facts")),
    )
    fields.finish()
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
