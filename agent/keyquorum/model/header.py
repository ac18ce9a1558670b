# SPDX-License-Identifier: Apache-2.0
"""The header descriptor: what of a LUKS2 header decides how data is read and is therefore bound (I5; docs/token.md §3).

It is read from the JSON metadata of the private header copy that is then also used for opening.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError, TryAgainError, UsageError
from keyquorum.model import strict_json
from keyquorum.native import sodium
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_METADATA = 4 << 20  # the largest JSON area LUKS2 allows
_WHAT = "LUKS2 header"


class HeaderDescriptor(Record):
    """The bound facts, each as the text that is compared and shown."""

    uuid: str
    segments: str
    digest: str
    requirements: str

    def differences(self, actual: HeaderDescriptor) -> list[tuple[str, str, str]]:
        """Return (field, expected, actual) for every fact that differs."""
        facts = [(name, str(getattr(self, name)), str(getattr(actual, name))) for name in self._fields]
        return [(name, expected, found) for name, expected, found in facts if expected != found]

    def to_json(self) -> dict[str, str]:
        """Return the form that is signed and wrapped over."""
        return {name: getattr(self, name) for name in self._fields}


def describe(metadata: bytes, uuid: str) -> HeaderDescriptor:
    """Read the descriptor from LUKS2 JSON metadata; raises `TamperingError` for what could not be used at all."""
    table = strict_json.parse(metadata, _WHAT, MAX_METADATA, TamperingError)
    segments = _table(table, "segments")
    if not segments:
        raise TamperingError(_WHAT, "segments", "there is none")
    for number, segment in segments.items():
        if not isinstance(segment, dict) or segment.get("type") != "crypt":
            raise TamperingError(_WHAT, f"segments.{number}", "is not an encrypted one")
        if segment.get("flags"):
            raise TamperingError(_WHAT, f"segments.{number}.flags", "a re-encryption is under way")
        if "null" in str(segment.get("encryption")):
            raise TamperingError(
                _WHAT, f"segments.{number}.encryption", f"{segment.get('encryption')} encrypts nothing"
            )
    digests = [
        digest
        for digest in _table(table, "digests").values()
        if isinstance(digest, dict) and set(segments) <= set(digest.get("segments") or ())
    ]
    if len(digests) != 1:
        raise TamperingError(_WHAT, "digests", f"{len(digests)} digests cover the segments, not 1")
    bound = {name: digests[0].get(name) for name in ("type", "hash", "iterations", "salt", "digest")}
    requirements = (table.get("config") or {}).get("requirements") or {}
    mandatory = requirements.get("mandatory", []) if isinstance(requirements, dict) else [str(requirements)]
    return HeaderDescriptor(
        uuid=uuid,
        segments=strict_json.serialise(segments).decode(),
        digest=sodium.sha256(strict_json.serialise(bound)).hex(),
        requirements=",".join(sorted(str(item) for item in mandatory)),
    )


def refuse_unusual(descriptor: HeaderDescriptor) -> None:
    """Refuse to enrol a volume that is being re-encrypted or that needs features nobody here checked."""
    if "reencrypt" in descriptor.requirements:
        raise TryAgainError("the volume is being re-encrypted", "finish it first: cryptsetup reencrypt --resume-only")
    if descriptor.requirements:
        raise UsageError(f"the header requires {descriptor.requirements}, which keyquorum does not support")


def tokens(metadata: bytes) -> dict[str, dict[str, Any]]:
    """Return the header's tokens by number."""
    table = _table(strict_json.parse(metadata, _WHAT, MAX_METADATA, TamperingError), "tokens")
    return {number: token for number, token in table.items() if isinstance(token, dict)}


def keyslots(metadata: bytes) -> list[str]:
    """Return the numbers of the header's keyslots."""
    return sorted(_table(strict_json.parse(metadata, _WHAT, MAX_METADATA, TamperingError), "keyslots"))


def _table(table: Any, name: str) -> dict[str, Any]:
    value = table.get(name) if isinstance(table, dict) else None
    if not isinstance(value, dict):
        raise TamperingError(_WHAT, name, "is missing")
    return value
