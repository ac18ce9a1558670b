# SPDX-License-Identifier: Apache-2.0
"""Policies of every technology: signed, versioned and expiring (docs/attestation.md §8).

A policy that does not parse, is not signed by a known key, is expired, of the future or older than one seen before is
a denial: `accept` notes the failed check, and without these checks no result is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypedDict, TypeVar, cast

from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.evidence.instants import shown
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.evidence.checks import Checks

VERSION = 1
WHAT = "the reference values"
MAX_ENVELOPE = 64 * 1024
MAX_TIME = 1 << 40
_REMEMBERED = 512  # policies that were verified and read, by their bytes: a fleet has few, and asks often


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPolicy:
    """Reference values as they are stored: a DSSE envelope in JSON, who may sign, and the lowest serial to accept."""

    envelope: bytes
    signers: tuple[dsse.PublicKey, ...]
    lowest_serial: int = 1


class Versioned(Protocol):
    """What reference values of every technology have."""

    @property
    def name(self) -> str:
        """Of the policy; shown in results."""

    @property
    def serial(self) -> int:
        """Only goes up."""

    @property
    def issued(self) -> int:
        """The first instant at which it counts, in seconds since 1970."""

    @property
    def expires(self) -> int:
        """The first at which it does not count any more."""


_Policy = TypeVar("_Policy", bound=Versioned)


class Header(TypedDict):
    """What a policy of any technology begins with; instants in seconds since 1970."""

    name: str
    serial: int
    issued: int
    expires: int


def accept(
    policy: SignedPolicy, kind: str, parse: Callable[[bytes], _Policy], now: int, checks: Checks, *, what: str = WHAT
) -> _Policy | None:
    """Return a policy of the payload type `kind` if it counts at the instant `now`, or None with the failed check.

    `what` it is stands in what a parser says.
    """
    signers = ", ".join(key.key_id for key in policy.signers) or "nobody"
    try:
        payload = _verified(policy.envelope, kind, policy.signers, what)
    except TamperingError as problem:
        checks.refuse("policy.signature", problem, f"signed by {signers}")
        return None
    checks.demand("policy.signature", expected=f"signed by {signers}", actual="signed", holds=True)
    try:
        found = cast("_Policy", _read(parse, payload))
    except TamperingError as problem:
        checks.refuse("policy.format", problem, f"version {VERSION}, every field known")
        return None
    checks.demand("policy.format", expected=f"version {VERSION}", actual=f"version {VERSION}", holds=True)
    checks.demand(
        "policy.validity",
        expected=f"from {shown(found.issued)} to before {shown(found.expires)}",
        actual=shown(now),
        holds=found.issued <= now < found.expires,
    )
    checks.demand(
        "policy.serial",
        expected=f"at least {policy.lowest_serial}",
        actual=str(found.serial),
        holds=found.serial >= policy.lowest_serial,
    )
    if checks.failed:
        return None
    checks.claim("policy.name", found.name)
    checks.claim("policy.serial", str(found.serial))
    return found


@lru_cache(_REMEMBERED)
def _verified(envelope: bytes, kind: str, signers: tuple[dsse.PublicKey, ...], what: str) -> bytes:
    table = strict_json.parse(envelope, what, MAX_ENVELOPE, TamperingError)
    return dsse.verify(dsse.parse(table, what), kind, signers)


@lru_cache(_REMEMBERED)
def _read(parse: Callable[[bytes], Versioned], payload: bytes) -> Versioned:
    return parse(payload)


def begin(payload: bytes) -> tuple[Fields, Header]:
    """Return the fields of a verified envelope's payload, and the header taken from them; raises `TamperingError`."""
    fields = Fields.read(payload, WHAT, dsse.MAX_PAYLOAD, TamperingError)
    fields.version(VERSION)
    return fields, Header(
        name=fields.name("name", longest=64),
        serial=fields.integer("serial", 1, 1 << 53),
        issued=fields.integer("issued", 0, MAX_TIME),
        expires=fields.integer("expires", 0, MAX_TIME),
    )
