# SPDX-License-Identifier: Apache-2.0
"""Release policies as they are written and signed (docs/custodian.md §5): strict reading, no judging.

The TOML that an owner writes and the JSON that is signed have the same fields. Every rule must be there: one that is
not wanted says "any", so that a forgotten line loosens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from keyquorum.custodian.entry import MAX_TIME
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import MalformedError, TamperingError
from keyquorum.evidence.result import Status
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.model.strict_json import ErrorType

POLICY_TYPE = "application/vnd.keyquorum.release-policy.v1+json"
VERSION = 1
MAX_PAYLOAD = 32 * 1024
ANY = "any"
# A machine that was found wanting gets nothing, whatever a policy says; people may let through one without evidence.
STATES = (str(Status.TRUSTED), str(Status.UNREACHABLE))
PLACES = ("regions", "countries", "operators")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
MOST_NAMES = 256
MOST_OPERATORS = 32
_MAX_COUNT = 1_000_000_000
_MAX_WITHIN = 31 * 24 * 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_WHAT = "the release policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """A weekly window of local time: `days` from 0 (Monday), minutes since midnight; it may run over midnight."""

    days: frozenset[int]
    start: int
    end: int
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """How many of which operators must agree, and for how many seconds their answers count."""

    needed: int
    operators: Mapping[str, PublicKey]
    within: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """A policy that was read. None, and no names in a place, is "any"."""

    name: str
    serial: int
    issued: int
    expires: int
    volumes: tuple[str, ...]
    machines: tuple[str, ...]
    attestation: tuple[str, ...]
    custodian: Mapping[str, tuple[str, ...]]
    requester: Mapping[str, tuple[str, ...]]
    hours: Hours | None
    limits: tuple[int, int] | None
    approvals: Approvals | None


def payload_of(table: dict[str, Any]) -> bytes:
    """Return what an owner signs for a policy that a TOML parser has read; raises `MalformedError`."""
    if not isinstance(table, dict):
        raise MalformedError(_WHAT, "", "must be a table")
    plain = {name: _seconds_of(value) if name in {"issued", "expires"} else value for name, value in table.items()}
    try:
        payload = strict_json.serialise(plain)
    except TypeError:
        raise MalformedError(_WHAT, "", "has a value of a kind that no policy has") from None
    parse(payload, MalformedError)
    return payload


def _seconds_of(value: Any) -> Any:
    """A date of TOML is its first instant in UTC, an instant of TOML needs its offset."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise MalformedError(_WHAT, "", f"{value.isoformat()} says no offset from UTC")
        return int(value.timestamp())
    if isinstance(value, date):
        return int(datetime.combine(value, time(), UTC).timestamp())
    return value


def parse(payload: bytes, error: ErrorType = TamperingError) -> ReleasePolicy:
    """Read a policy; raises `error`."""
    fields = Fields.read(payload, _WHAT, MAX_PAYLOAD, error)
    fields.version(VERSION)
    places = {name: _place(fields, name, error) for name in PLACES}
    found = ReleasePolicy(
        name=fields.name("name", longest=64),
        serial=fields.integer("serial", 1, 1 << 53),
        issued=fields.integer("issued", 0, MAX_TIME),
        expires=fields.integer("expires", 0, MAX_TIME),
        volumes=_names(fields, "volumes"),
        machines=_names(fields, "machines"),
        attestation=_names(fields, "attestation", STATES),
        custodian={name: place[0] for name, place in places.items()},
        requester={name: place[1] for name, place in places.items()},
        hours=_hours(fields, error),
        limits=_limits(fields, error),
        approvals=_approvals(fields, error),
    )
    fields.finish()
    if found.expires <= found.issued:
        fields.fail("expires", "is not after issued")
    return found


def _table(fields: Fields, name: str, error: ErrorType) -> Fields | None:
    """Take a rule's table, or None for a rule that is not wanted."""
    value = fields.take(name)
    return None if value == ANY else Fields(value, fields.what, error, name)


def _names(fields: Fields, name: str, choices: tuple[str, ...] = ()) -> tuple[str, ...]:
    found: list[str] = []
    for index, value in enumerate(fields.rows(name, most=MOST_NAMES)):
        row = fields.row(name, index, {"name": value})
        found.append(row.choice("name", choices) if choices else row.text("name", longest=64))
    if not found or len(set(found)) != len(found):
        fields.fail(name, "is empty or names something twice")
    return tuple(found)


def _place(fields: Fields, name: str, error: ErrorType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take where the custodian and the requester must be; an empty one may be anywhere."""
    table = _table(fields, name, error)
    if table is None:
        return (), ()
    found = []
    for side in ("custodian", "requester"):
        value = table.take(side)
        found.append(() if value == ANY else _names(Fields({side: value}, fields.what, error, name), side))
    table.finish()
    return found[0], found[1]


def _hours(fields: Fields, error: ErrorType) -> Hours | None:
    table = _table(fields, "hours", error)
    if table is None:
        return None
    found = Hours(
        days=_days(table),
        start=_minutes(table, "from"),
        end=_minutes(table, "to"),
        zone=table.text("zone", longest=64),
    )
    table.finish()
    if found.start % DAY_MINUTES == found.end % DAY_MINUTES and (found.start, found.end) != (0, DAY_MINUTES):
        fields.fail("hours", "a window from 00:00 to 24:00 is a whole day; this one is none")
    return found


def _days(table: Fields) -> frozenset[int]:
    """Take days such as "mon-fri" or "mon,wed,sat-sun"; a range may run over Sunday."""
    found: set[int] = set()
    for part in table.text("days", longest=64).split(","):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not set(ends) <= set(DAYS):
            table.fail("days", f"{part!r} is not made of {', '.join(DAYS)}")
        start, end = (DAYS.index(day) for day in ends)
        found |= {(start + step) % 7 for step in range((end - start) % 7 + 1)}
    return frozenset(found)


def _minutes(table: Fields, name: str) -> int:
    text = table.text(name, longest=5)
    hours, colon, minutes = text.partition(":")
    plain = colon and len(hours) == len(minutes) == 2 and text.isascii() and (hours + minutes).isdecimal()
    if not plain or int(minutes) > 59 or int(hours) * 60 + int(minutes) > DAY_MINUTES:
        table.fail(name, "must be a time from 00:00 to 24:00")
    return int(hours) * 60 + int(minutes)


def _limits(fields: Fields, error: ErrorType) -> tuple[int, int] | None:
    table = _table(fields, "limits", error)
    if table is None:
        return None
    found = table.integer("per_hour", 1, _MAX_COUNT), table.integer("total", 1, _MAX_COUNT)
    table.finish()
    return found


def _approvals(fields: Fields, error: ErrorType) -> Approvals | None:
    table = _table(fields, "approvals", error)
    if table is None:
        return None
    row = table.table("of")
    operators = {name: PublicKey(raw=row.hexadecimal(name, 32)) for name in row.names()}
    if len(operators) > MOST_OPERATORS or len({key.raw for key in operators.values()}) < len(operators):
        table.fail("of", f"names one key twice, or more than {MOST_OPERATORS} operators")
    found = Approvals(
        needed=table.integer("needed", 1, max(1, len(operators))),
        operators=operators,
        within=_seconds(table, "within"),
    )
    table.finish()
    if not operators:
        table.fail("of", "is empty: nobody could ever agree")
    return found


def _seconds(table: Fields, name: str) -> int:
    text = table.text(name, longest=8)
    count, unit = text[:-1], text[-1]
    if unit not in _UNITS or not (count.isascii() and count.isdecimal()):
        table.fail(name, "must be a number with s, m, h or d")
    found = int(count) * _UNITS[unit]
    if not 0 < found <= _MAX_WITHIN:
        table.fail(name, "is not from 1 s to 31 days")
    return found
