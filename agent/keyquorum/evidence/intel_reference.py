# SPDX-License-Identifier: Apache-2.0
"""Reference values for TDX and SGX: signed, versioned, expiring; nothing has a default (docs/attestation-intel.md §5).

What is loosened is written into the policy by name, and every result shows it as waived or in its own check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keyquorum.evidence import signed_policy
from keyquorum.evidence.intel_collateral import STATUSES
from keyquorum.evidence.intel_quote import SGX, TDX
from keyquorum.evidence.intel_tcb import REVOKED, UP_TO_DATE
from keyquorum.evidence.signed_policy import MAX_TIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.model.fields import Fields

INTEL_TYPE = "application/vnd.keyquorum.intel-reference.v1+json"
_MAX_VALUES = 256
_HEX = frozenset("0123456789abcdef")
LOOSENABLE = tuple(status for status in STATUSES if status not in {UP_TO_DATE, REVOKED})

# Bits of TD attributes that a policy names, and what they must be unless it takes any value.
TD_ATTRIBUTES = {
    "debug": (0, False), "sept-ve-disable": (28, True), "migratable": (29, False), "pks": (30, False),
    "kl": (31, False), "perfmon": (63, False), "lass": (27, False), "tpa": (62, False),
}  # fmt: skip
ENCLAVE_ATTRIBUTES = {"debug": (1, False), "provision-key": (4, False), "einittoken-key": (5, False)}
RTMRS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
MEASUREMENTS = ("mrtd", *RTMRS, "mrconfigid", "mrowner", "mrownerconfig", "mrseam")
_MEASURED = frozenset(MEASUREMENTS[:5])  # at least one of these must be judged: the rest is said by the host
_IDENTITY_SIZES = {"configid": 64, "isvextprodid": 16, "isvfamilyid": 16}
UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveRule:
    """One acceptable enclave: by `mrenclave` alone, or by signer, product and lowest security version."""

    mrenclave: bytes = b""
    mrsigner: bytes = b""
    isvprodid: int = 0
    isvsvn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbRules:
    """Statuses and advisories that are taken for the time being, each to before an instant; `lowest` is the floor."""

    statuses: Mapping[str, int]
    advisories: Mapping[str, int]
    lowest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRules:
    """PPIDs that are taken, None for all; and PPIDs or FMSPCs that never are."""

    allowed: frozenset[bytes] | None
    denied: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelReference:
    """A policy that has been verified, for `tee` only.

    `any_attributes` are those taken with any value. `values` gives each field its acceptable values, `events` each
    RTMR that is judged by them the digests of which it may be made; a field that is in neither is not judged. `xfam`
    are the bits that may be set, None for all that the module allows.
    """

    name: str
    serial: int
    issued: int
    expires: int
    tee: str
    tcb: TcbRules
    platforms: PlatformRules
    any_attributes: frozenset[str]
    values: Mapping[str, frozenset[bytes]]
    events: Mapping[str, frozenset[bytes]]
    xfam: int | None = None
    enclaves: tuple[EnclaveRule, ...] = ()


def parse(payload: bytes) -> IntelReference:
    """Read the payload of an envelope that was verified; raises `TamperingError`."""
    fields, header = signed_policy.begin(payload)
    tee = fields.choice("tee", (TDX, SGX))
    tcb, platforms = _tcb(fields.table("tcb")), _platforms(fields.table("platforms"))
    body = fields.table("td" if tee == TDX else "enclave")
    attributes = _attributes(body.table("attributes"), TD_ATTRIBUTES if tee == TDX else ENCLAVE_ATTRIBUTES)
    sizes = dict.fromkeys((*MEASUREMENTS, "mrservicetd"), 48) if tee == TDX else _IDENTITY_SIZES
    values, events = _rules(body, sizes)
    if tee == TDX and not _MEASURED & (values.keys() | events.keys()):
        body.fail("", "judges no measurement: such a policy would trust every trust domain")
    reference = IntelReference(
        **header,
        tee=tee,
        tcb=tcb,
        platforms=platforms,
        any_attributes=attributes,
        values=values,
        events=events,
        xfam=_xfam(body) if tee == TDX else None,
        enclaves=_enclaves(body) if tee == SGX else (),
    )
    body.finish()
    fields.finish()
    return reference


def _tcb(fields: Fields) -> TcbRules:
    statuses, advisories = _instants(fields.table("statuses")), _instants(fields.table("advisories"))
    for status in statuses:
        if status not in LOOSENABLE:
            fields.fail("statuses", f"{status} is none of {', '.join(LOOSENABLE)}")
    lowest = fields.integer("evaluation", 0, 1 << 31)
    fields.finish()
    return TcbRules(statuses=statuses, advisories=advisories, lowest=lowest)


def _instants(fields: Fields) -> dict[str, int]:
    names = fields.names()
    if len(names) > _MAX_VALUES or not all(name.isprintable() and 0 < len(name) <= 64 for name in names):
        fields.fail("", f"must be at most {_MAX_VALUES} printable names with instants")
    return {name: fields.integer(name, 0, MAX_TIME) for name in names}


def _platforms(fields: Fields) -> PlatformRules:
    allowed = None
    if fields.has("allowed"):
        allowed = frozenset(_digits(fields, "allowed", fields.take("allowed"), (16,)))
        if not allowed:
            fields.fail("allowed", "is empty: such a policy would trust no platform; null takes all")
    else:
        fields.take("allowed")
    denied = frozenset(_digits(fields, "denied", fields.take("denied"), (16, 6)))
    fields.finish()
    return PlatformRules(allowed=allowed, denied=denied)


def _digits(fields: Fields, name: str, rows: Any, sizes: tuple[int, ...]) -> list[bytes]:
    """Read a list of bytes in lower-case hexadecimal, each of one of some sizes."""
    if not isinstance(rows, list) or len(rows) > _MAX_VALUES:
        fields.fail(name, f"must be a list of at most {_MAX_VALUES} values")
    lengths = [2 * size for size in sizes]
    for index, row in enumerate(rows):
        if not isinstance(row, str) or len(row) not in lengths or not _HEX.issuperset(row):
            fields.fail(f"{name}[{index}]", f"must be {' or '.join(map(str, lengths))} hexadecimal digits")
    return [bytes.fromhex(row) for row in rows]


def _attributes(fields: Fields, known: Mapping[str, tuple[int, bool]]) -> frozenset[str]:
    """Return the attributes that may have any value."""
    words = {name: fields.choice(name, ("on" if safe else "off", "any")) for name, (_, safe) in known.items()}
    fields.finish()
    return frozenset(name for name, word in words.items() if word == "any")


def _rules(fields: Fields, sizes: Mapping[str, int]) -> tuple[dict[str, frozenset[bytes]], dict[str, frozenset[bytes]]]:
    """Take a rule for each name: a list of acceptable values; of RTMRs also one of events; or "unjudged"."""
    values, events = {}, {}
    for name, size in sizes.items():
        rule = fields.take(name)
        if rule == UNJUDGED:
            continue
        if isinstance(rule, dict) and name in RTMRS:
            row = fields.row(name, 0, rule)
            events[name] = _acceptable(row, "events", row.take("events"), size)
            row.finish()
        else:
            values[name] = _acceptable(fields, name, rule, size)
    return values, events


def _acceptable(fields: Fields, name: str, rule: Any, size: int) -> frozenset[bytes]:
    found = frozenset(_digits(fields, name, rule, (size,)))
    if not found:
        fields.fail(name, "is empty")
    return found


def _xfam(fields: Fields) -> int | None:
    if not fields.has("xfam"):
        fields.take("xfam")  # null must be written
        return None
    return int.from_bytes(fields.hexadecimal("xfam", 8), "big")


def _enclaves(fields: Fields) -> tuple[EnclaveRule, ...]:
    found = []
    for index, item in enumerate(fields.rows("identities", most=_MAX_VALUES)):
        row = fields.row("identities", index, item)
        if row.has("mrenclave"):
            found.append(EnclaveRule(mrenclave=row.hexadecimal("mrenclave", 32)))
        else:
            found.append(
                EnclaveRule(
                    mrsigner=row.hexadecimal("mrsigner", 32),
                    isvprodid=row.integer("isvprodid", 0, 0xFFFF),
                    isvsvn=row.integer("isvsvn", 0, 0xFFFF),
                )
            )
        row.finish()
    if not found:
        fields.fail("identities", "is empty: such a policy would trust no enclave")
    return tuple(found)
