# SPDX-License-Identifier: Apache-2.0
"""What a verifier says about a machine: trusted, untrusted or unreachable, and every check by which it came to that.

One type for all technologies, a value without secrets, with one JSON form (docs/attestation.md §3). A result can be
kept beside a decision, signed and shown to a person; relying parties call `demand`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import RefusedError, TamperingError, UnavailableError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT_TYPE = "application/vnd.keyquorum.attestation-result.v1+json"
VERSION = 1
MAX_RESULT = 32 * 1024
MAX_TEXT = 256  # characters of anything that a result quotes
_MAX_CHECKS = 128
_MAX_CHAIN = 8
_MAX_CLAIMS = 128
_REMEMBERED = 2048  # checks that were written, by all that they say
_MAX_TIME = 1 << 40  # seconds since 1970; certificates may end in the year 9999


class Status(StrEnum):
    """The three answers. Unreachable is not untrusted: nobody was found wanting, nothing was found at all."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    UNREACHABLE = "unreachable"


class Outcome(StrEnum):
    """How one check ended. Waived: the policy, or the caller, explicitly asks nothing here."""

    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"


def printable(text: str) -> str:
    """Return at most `MAX_TEXT` characters that change nothing on a terminal, and never none."""
    if 0 < len(text) <= MAX_TEXT and text.isprintable():
        return text
    clean = "".join(character if character.isprintable() else "?" for character in text[: MAX_TEXT + 1])
    return clean if 0 < len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…" if clean else "nothing"


class Check(NamedTuple):
    """One line of the checklist: its name, where it is demanded, what was wanted and what was there."""

    name: str
    spec: str
    expected: str
    actual: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A certificate of the chain of trust, leaf first. `sha256` is of its DER, `not_after` in seconds since 1970."""

    subject: str
    issuer: str
    sha256: str
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """An appraisal. `at` is the instant it was made for and `last_trusted` the last one that ended in trust (0: none).

    A result cannot be made that is trusted without a check or with a failed one.
    """

    technology: str
    status: Status
    at: int
    checks: tuple[Check, ...] = ()
    chain: tuple[Link, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    last_trusted: int = 0

    def __post_init__(self) -> None:
        """Refuse a result that contradicts itself."""
        problem = self._contradiction()
        if problem:
            raise TamperingError("the attestation result", "status", problem)

    def _contradiction(self) -> str:
        if self.status is Status.TRUSTED and (not self.checks or self.failed):
            return "is trusted, but not every check passed"
        if self.status is Status.TRUSTED and all(check.outcome is Outcome.WAIVED for check in self.checks):
            return "is trusted, but every check was waived"
        if self.status is Status.UNREACHABLE and (self.checks or self.chain or self.claims):
            return "is unreachable, but something was checked"
        if self.status is not Status.TRUSTED and not self.reason:
            return f"is {self.status}, but no reason is given"
        return ""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in the order in which they were made."""
        return tuple(check for check in self.checks if check.outcome is Outcome.FAILED)

    @property
    def waived(self) -> tuple[Check, ...]:
        """What was not demanded."""
        return tuple(check for check in self.checks if check.outcome is Outcome.WAIVED)

    def demand(self) -> None:
        """Return if trusted; raises `UnavailableError` when nobody answered, `RefusedError` for everything else."""
        if self.status is Status.UNREACHABLE:
            raise UnavailableError(f"no evidence could be had: {self.reason}")
        if self.status is not Status.TRUSTED:
            raise RefusedError(f"the evidence does not hold: {self.reason}", tampered=True)


def unreachable(technology: str, at: int, reason: str, last_trusted: int = 0) -> AttestationResult:
    """Return the result for a machine that gave no evidence."""
    return AttestationResult(
        technology=technology,
        status=Status.UNREACHABLE,
        at=at,
        reason=printable(reason),
        last_trusted=last_trusted,
    )


def to_json(result: AttestationResult) -> dict[str, object]:
    """Return the JSON form as a table."""
    return {**_table(result), "checks": [check._asdict() for check in result.checks]}


def _table(result: AttestationResult) -> dict[str, object]:
    """Return the JSON form but for the checks."""
    return {
        "version": VERSION,
        "technology": result.technology,
        "status": str(result.status),
        "at": result.at,
        "last_trusted": result.last_trusted,
        "reason": result.reason,
        "chain": [
            {"subject": link.subject, "issuer": link.issuer, "sha256": link.sha256, "not_after": link.not_after}
            for link in result.chain
        ],
        "claims": dict(result.claims),
    }


def serialise(result: AttestationResult) -> bytes:
    """Write the JSON form, which is the payload of a signed result."""
    return strict_json.serialise_around(_table(result), "checks", map(check_text, result.checks))


@lru_cache(_REMEMBERED)
def check_text(check: Check) -> str:
    """Return a check in canonical JSON; most of those of a fleet are the same."""
    return strict_json.serialise(check._asdict()).decode("ascii")


def parse(data: bytes, what: str = "the attestation result") -> AttestationResult:
    """Read the JSON form; raises `TamperingError`, also for a result that contradicts itself."""
    fields = Fields.read(data, what, MAX_RESULT, TamperingError)
    fields.version(VERSION)
    result = AttestationResult(
        technology=fields.name("technology"),
        status=Status(fields.choice("status", tuple(Status))),
        at=fields.integer("at", 0, _MAX_TIME),
        last_trusted=fields.integer("last_trusted", 0, _MAX_TIME),
        reason=_optional(fields, "reason"),
        checks=tuple(
            _check(fields.row("checks", index, row))
            for index, row in enumerate(fields.rows("checks", most=_MAX_CHECKS))
        ),
        chain=tuple(
            _link(fields.row("chain", index, row)) for index, row in enumerate(fields.rows("chain", most=_MAX_CHAIN))
        ),
        claims=_claims(fields.table("claims")),
    )
    fields.finish()
    return result


def _optional(fields: Fields, name: str) -> str:
    value = fields.take(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        fields.fail(name, f"must be a printable text of at most {MAX_TEXT} characters")
    return value


def _check(row: Fields) -> Check:
    found = Check(
        name=row.name("name"),
        spec=row.text("spec"),
        expected=row.text("expected"),
        actual=row.text("actual"),
        outcome=Outcome(row.choice("outcome", tuple(Outcome))),
    )
    row.finish()
    return found


def _link(row: Fields) -> Link:
    found = Link(
        subject=row.text("subject"),
        issuer=row.text("issuer"),
        sha256=row.hexadecimal("sha256", 32).hex(),
        not_after=row.integer("not_after", 0, _MAX_TIME),
    )
    row.finish()
    return found


def _claims(fields: Fields) -> dict[str, str]:
    names = fields.names()
    if len(names) > _MAX_CLAIMS:
        fields.fail("", f"has {len(names)} claims, more than {_MAX_CLAIMS}")
    return {name: fields.text(name) for name in names}
