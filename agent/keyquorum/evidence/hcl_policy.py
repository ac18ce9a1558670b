# SPDX-License-Identifier: Apache-2.0
"""Reference values of a virtual machine of Azure: how it must be set up, signed (docs/attestation-azure.md §4)."""

from __future__ import annotations

from dataclasses import dataclass

from keyquorum.errors import TamperingError
from keyquorum.evidence import signed_policy
from keyquorum.evidence.signed_policy import WHAT
from keyquorum.model.fields import Fields

REFERENCE_TYPE = "application/vnd.keyquorum.azure-reference.v1+json"
_ANY = "any"
_MAX_VALUES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReference:
    """A policy that has been verified: what is demanded, and which machines (None: any)."""

    name: str
    serial: int
    issued: int
    expires: int
    secure_boot: bool
    tpm: bool
    console: bool
    machines: frozenset[str] | None


def parse(payload: bytes) -> HclReference:
    """Read the payload of an envelope that was verified; raises `TamperingError`. No field has a default."""
    fields, header = signed_policy.begin(payload)
    found = HclReference(
        **header,
        secure_boot=fields.choice("secure-boot", ("on", _ANY)) == "on",
        tpm=fields.choice("tpm", ("on", _ANY)) == "on",
        console=fields.choice("console", ("off", _ANY)) == "off",
        machines=_machines(fields),
    )
    fields.finish()
    return found


def _machines(fields: Fields) -> frozenset[str] | None:
    value = fields.take("machines")
    if value == _ANY:
        return None
    rows = Fields({"machines": value}, WHAT, TamperingError).rows("machines", most=_MAX_VALUES)
    return frozenset(Fields({"machine": row}, WHAT, TamperingError).text("machine", longest=64) for row in rows)
