# SPDX-License-Identifier: Apache-2.0
"""Reference values: what a machine's TPM may say, in a signed policy (docs/attestation.md §8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import signed_policy
from keyquorum.evidence.tpm_wire import BANKS, SIZES
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.signed_policy import SignedPolicy

REFERENCE_TYPE = "application/vnd.keyquorum.tpm-reference.v1+json"
RESETTABLE = frozenset({16, 23})  # anybody may set them to anything (PC Client Platform TPM Profile, PCR attributes)
_PCRS = 24
_MAX_VALUES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrRule:
    """What one PCR must be: one of `values`, or made of `events` only, or explained by the log (`log`), or anything.

    Exactly one of the four; a PCR that may be anything is quoted, shown and not judged.
    """

    values: frozenset[bytes] = frozenset()
    events: frozenset[bytes] = frozenset()
    log: bool = False

    @property
    def judged(self) -> bool:
        """Whether the rule can refuse."""
        return bool(self.values or self.events or self.log)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRules:
    """What the event log must show; each false is a loosening that every result shows as waived."""

    secure_boot: bool
    exit_boot_services: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """A policy that has been verified. `log` None demands no log; `firmware` None no firmware version."""

    name: str
    serial: int
    issued: int
    expires: int
    bank: str
    pcrs: Mapping[int, PcrRule]
    log: LogRules | None
    firmware: int | None
    safe_clock: bool

    @property
    def selection(self) -> tuple[int, ...]:
        """The PCRs that a quote must be of, exactly."""
        return tuple(sorted(self.pcrs))


def load(policy: SignedPolicy, now: int, checks: Checks) -> ReferenceValues | None:
    """Return a TPM's policy if it counts at the instant `now` (seconds since 1970), or None with the failed check."""
    return signed_policy.accept(policy, REFERENCE_TYPE, parse, now, checks)


def parse(payload: bytes) -> ReferenceValues:
    """Read the payload of an envelope that was verified; raises `TamperingError`."""
    fields, header = signed_policy.begin(payload)
    bank = fields.choice("bank", tuple(BANKS))
    log = _log(fields)
    pcrs = _pcrs(fields, bank, log is not None)
    found = ReferenceValues(
        **header,
        bank=bank,
        pcrs=pcrs,
        log=log,
        firmware=_firmware(fields),
        safe_clock=fields.choice("clock", ("safe", "any")) == "safe",
    )
    fields.finish()
    return found


def _log(fields: Fields) -> LogRules | None:
    if not fields.has("log"):
        fields.take("log")  # null must be written: a forgotten line loosens nothing
        return None
    table = fields.table("log")
    found = LogRules(
        secure_boot=table.choice("secure_boot", ("on", "any")) == "on",
        exit_boot_services=table.choice("exit_boot_services", ("called", "any")) == "called",
    )
    table.finish()
    return found


def _firmware(fields: Fields) -> int | None:
    if not fields.has("firmware"):
        fields.take("firmware")
        return None
    return int.from_bytes(fields.hexadecimal("firmware", 8), "big")


def _pcrs(fields: Fields, bank: str, with_log: bool) -> dict[int, PcrRule]:
    table = fields.table("pcrs")
    found: dict[int, PcrRule] = {}
    for name in table.names():
        if not name.isdecimal() or str(int(name[:3])) != name or int(name) >= _PCRS:
            table.fail(name if name.isprintable() else "", f"is not a PCR from 0 to {_PCRS - 1}")
        rule = _rule(table, name, SIZES[bank])
        if int(name) in RESETTABLE and rule.judged:
            table.fail(name, "anybody may set this PCR to anything: it can only be unjudged")
        found[int(name)] = rule
    if not any(rule.judged for rule in found.values()):
        fields.fail("pcrs", "judges no PCR: such a policy would trust every machine")
    if not with_log and any(rule.log or rule.events for rule in found.values()):
        fields.fail("log", "is null, but a PCR is judged by it")
    return found


def _rule(table: Fields, name: str, size: int) -> PcrRule:
    value = table.take(name)
    if value == "unjudged":
        return PcrRule()
    if value == "log":
        return PcrRule(log=True)
    if isinstance(value, list):
        return PcrRule(values=_digests(Fields({"": value}, table.what, TamperingError, f"pcrs.{name}"), "", size))
    inner = table.row(name, 0, value)
    events = _digests(inner, "events", size)
    inner.finish()
    return PcrRule(events=events)


def _digests(fields: Fields, name: str, size: int) -> frozenset[bytes]:
    rows = fields.rows(name, most=_MAX_VALUES)
    found = frozenset(Fields({"value": row}, fields.what, TamperingError).hexadecimal("value", size) for row in rows)
    if not found:
        fields.fail(name, "is empty")
    return found
