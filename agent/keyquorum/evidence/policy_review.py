# SPDX-License-Identifier: Apache-2.0
"""Reading a policy of any technology to check it, and naming what it lets pass (docs/attestation-command.md §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.evidence import hcl_policy, instants, intel_reference, nitro_policy, reference_values, snp_policy
from keyquorum.evidence.signed_policy import MAX_ENVELOPE, WHAT
from keyquorum.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyquorum.evidence.signed_policy import Versioned

_ANYTHING = ("any", "unjudged", None)
_UNTIL = ("statuses", "advisories")


class Kind(NamedTuple):
    """A kind of policy: for whom it is, a field that only this kind has, its reader, its payload type."""

    words: str
    mark: str
    parse: Callable[[bytes], Versioned]
    payload_type: str


KINDS = (
    Kind("a TPM", "bank", reference_values.parse, reference_values.REFERENCE_TYPE),
    Kind("AMD SEV-SNP", "report-versions", snp_policy.parse, snp_policy.REFERENCE_TYPE),
    Kind("Intel TDX or SGX", "tee", intel_reference.parse, intel_reference.INTEL_TYPE),
    Kind("AWS Nitro Enclaves", "max-age", nitro_policy.parse, nitro_policy.REFERENCE_TYPE),
    Kind("a virtual machine of Azure", "machines", hcl_policy.parse, hcl_policy.REFERENCE_TYPE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A policy that can be read: its kind, its canonical payload, whose key ids signed it, and what it lets pass.

    `signers` is empty for one that is not signed yet. Whether signatures hold is only said by a review that was given
    keys: then it has those of them whose signature does, and not the others that the envelope names.
    """

    kind: Kind
    payload: bytes
    policy: Versioned
    signers: tuple[str, ...]
    loose: tuple[str, ...]


def review(data: bytes, signers: tuple[dsse.PublicKey, ...] = ()) -> Review:
    """Read a policy as JSON or in its envelope; raises `TamperingError`.

    With `signers`, the envelope must be signed by one of them.
    """
    table = strict_json.parse(data, WHAT, MAX_ENVELOPE, TamperingError)
    named: tuple[str, ...] = ()
    declared = ""
    if isinstance(table, dict) and "payloadType" in table:
        envelope = dsse.parse(table, WHAT)
        payload, declared = envelope.payload, envelope.payload_type
        named = tuple(key_id for key_id, _ in envelope.signatures)
        if signers:
            payload = dsse.verify(envelope, declared, signers)
            named = tuple(dict.fromkeys(key.key_id for key in signers if _holds(envelope, key)))
        table = strict_json.parse(payload, WHAT, dsse.MAX_PAYLOAD, TamperingError)
    elif signers:
        raise TamperingError(WHAT, "", "is not signed")
    kind = _kind(table, declared)
    canonical = strict_json.serialise(table)
    return Review(
        kind=kind, payload=canonical, policy=kind.parse(canonical), signers=named, loose=tuple(_loose(table, ""))
    )


def _holds(envelope: dsse.Envelope, key: dsse.PublicKey) -> bool:
    try:
        dsse.verify(envelope, envelope.payload_type, (key,))
    except TamperingError:
        return False
    return True


def _kind(table: Any, declared: str) -> Kind:
    names = table if isinstance(table, dict) else {}
    for kind in KINDS:
        if declared == kind.payload_type or (not declared and kind.mark in names):
            return kind
    if declared:
        raise TamperingError(WHAT, "payloadType", f"{declared} is no policy for evidence")
    marks = ", ".join(kind.mark for kind in KINDS)
    raise TamperingError(WHAT, "", f"is of no known kind: it has none of the fields {marks}")


def _loose(value: Any, path: str) -> Iterator[str]:
    """Name every field that takes anything, and every exception with its end."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        at = f"{path}.{name}" if path else name
        if inner in _ANYTHING:
            yield f"{at} takes anything"
        elif name in _UNTIL and isinstance(inner, dict):
            yield from (f"{at} takes {exception} until {instants.shown(end)}" for exception, end in inner.items())
        else:
            yield from _loose(inner, at)
