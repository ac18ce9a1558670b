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
    table = _parse(metadata)
    segments = _segments(table)
    for number, segment in segments.items():
        if segment.get("flags"):
            raise TamperingError(_WHAT, f"segments.{number}.flags", "a re-encryption is under way")
        cipher = segment.get("encryption")
        if not isinstance(cipher, str):
            raise TamperingError(_WHAT, f"segments.{number}.encryption", "is missing")
        if "null" in cipher:
            raise TamperingError(_WHAT, f"segments.{number}.encryption", f"{cipher[:40]} encrypts nothing")
    digest = _digest(table)
    bound = {name: digest.get(name) for name in ("type", "hash", "iterations", "salt", "digest")}
    return HeaderDescriptor(
        uuid=uuid,
        segments=strict_json.serialise(segments).decode(),
        digest=sodium.sha256(strict_json.serialise(bound)).hex(),
        requirements=",".join(_requirements(table)),
    )


def refuse_unusual(metadata: bytes) -> None:
    """Refuse to enrol a volume that is being re-encrypted or that needs features nobody here checked."""
    table = _parse(metadata)
    requirements = _requirements(table)
    if (
        any("reencrypt" in requirement for requirement in requirements)
        or any(segment.get("flags") for segment in _segments(table).values())
        or any(
            isinstance(slot, dict) and slot.get("type") == "reencrypt" for slot in _table(table, "keyslots").values()
        )
    ):
        raise TryAgainError("the volume is being re-encrypted", "finish it first: cryptsetup reencrypt --resume-only")
    if requirements:
        raise UsageError(f"the header requires {','.join(requirements)}, which keyquorum does not support")


def tokens(metadata: bytes) -> dict[str, dict[str, Any]]:
    """Return the header's tokens by number."""
    table = _table(_parse(metadata), "tokens")
    return {number: token for number, token in table.items() if isinstance(token, dict)}


def keyslots(metadata: bytes) -> list[str]:
    """Return the numbers of the keyslots that open the volume; others hold keys that nothing is encrypted with."""
    table = _parse(metadata)
    known, opening = _table(table, "keyslots"), _digest(table).get("keyslots")
    return sorted(number for number in known if isinstance(opening, list) and number in opening)


def _parse(metadata: bytes) -> Any:
    return strict_json.parse(metadata, _WHAT, MAX_METADATA, TamperingError)


def _segments(table: Any) -> dict[str, dict[str, Any]]:
    """Return the segments, all of which must be encrypted."""
    segments = _table(table, "segments")
    if not segments:
        raise TamperingError(_WHAT, "segments", "there is none")
    for number, segment in segments.items():
        if not isinstance(segment, dict) or segment.get("type") != "crypt":
            raise TamperingError(_WHAT, f"segments.{number}", "is not an encrypted one")
    return segments


def _digest(table: Any) -> dict[str, Any]:
    """Return the one digest that covers all segments."""
    covering = [
        digest
        for digest in _table(table, "digests").values()
        if isinstance(digest, dict)
        and isinstance(digest.get("segments"), list)
        and all(number in digest["segments"] for number in _segments(table))
    ]
    if len(covering) != 1:
        raise TamperingError(_WHAT, "digests", f"{len(covering)} digests cover the segments, not 1")
    found: dict[str, Any] = covering[0]
    return found


def _requirements(table: Any) -> list[str]:
    """Return the features that whoever uses the header must know."""
    config = table.get("config") or {}
    requirements = config.get("requirements") or {} if isinstance(config, dict) else None
    if requirements is None:
        raise TamperingError(_WHAT, "config", "is not a table")
    if not isinstance(requirements, dict):
        raise TamperingError(_WHAT, "config.requirements", "is not a table")
    mandatory = requirements.get("mandatory") or []
    if not isinstance(mandatory, list) or not all(isinstance(item, str) and "," not in item for item in mandatory):
        raise TamperingError(_WHAT, "config.requirements.mandatory", "is not a list of texts")
    return sorted(mandatory)


def _table(table: Any, name: str) -> dict[str, Any]:
    value = table.get(name) if isinstance(table, dict) else None
    if not isinstance(value, dict):
        raise TamperingError(_WHAT, name, "is missing")
    return value
