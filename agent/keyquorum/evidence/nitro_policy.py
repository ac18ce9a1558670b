# SPDX-License-Identifier: Apache-2.0
"""Reference values of Nitro Enclaves: which image may run where, signed and expiring (docs/attestation-nitro.md §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import signed_policy
from keyquorum.evidence.nitro_document import MAX_PCRS, PCR_SIZE
from keyquorum.evidence.signed_policy import WHAT
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE_TYPE = "application/vnd.keyquorum.nitro-reference.v1+json"
ANY = "any"
NAMED = (0, 1, 2, 3, 4, 8)  # image, kernel, application, role, instance, signer of the image: each must be in a policy
_IDENTITY = (0, 8)  # without one of them nobody knows what runs
_MAX_SPAN = 24 * 3600
_MAX_VALUES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroReference:
    """A policy that has been verified; `max_age` and `max_skew` in seconds, `pcrs` None takes any value."""

    name: str
    serial: int
    issued: int
    expires: int
    max_age: int
    max_skew: int
    debug: bool
    pcrs: Mapping[int, frozenset[bytes] | None]


def parse(payload: bytes) -> NitroReference:
    """Read the payload of an envelope that was verified; raises `TamperingError`. No field has a default."""
    fields, header = signed_policy.begin(payload)
    found = NitroReference(
        **header,
        max_age=fields.integer("max-age", 1, _MAX_SPAN),
        max_skew=fields.integer("max-skew", 0, _MAX_SPAN),
        debug=fields.choice("debug", ("forbidden", ANY)) == ANY,
        pcrs=_pcrs(fields.table("pcrs")),
    )
    fields.finish()
    return found


def _pcrs(fields: Fields) -> dict[int, frozenset[bytes] | None]:
    found: dict[int, frozenset[bytes] | None] = {}
    for name in fields.names():
        if not name.isdecimal() or str(int(name[:2])) != name or int(name) >= MAX_PCRS:
            fields.fail(name if name.isprintable() else "", f"is not a PCR from 0 to {MAX_PCRS - 1}")
        value = fields.take(name)
        found[int(name)] = None if value == ANY else _values(value, name)
    missing = [number for number in NAMED if number not in found]
    if missing:
        fields.fail(str(missing[0]), "is missing")
    if all(found[number] is None for number in _IDENTITY):
        fields.fail("0", 'is "any", and so is 8: such a policy would trust every enclave')
    return found


def _values(value: object, name: str) -> frozenset[bytes]:
    rows = Fields({name: value}, WHAT, TamperingError, "pcrs").rows(name, most=_MAX_VALUES)
    return frozenset(Fields({name: row}, WHAT, TamperingError, "pcrs").hexadecimal(name, PCR_SIZE) for row in rows)
