# SPDX-License-Identifier: Apache-2.0
"""The LUKS2 token: the signed set, and the fragments of holders that keep only a key (docs/token.md §1)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.tree import MAX_LEAVES
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPE = "keyquorum"
VERSION = 1
MAX_NUMBER = MAX_KEYSLOT = 31  # LUKS2 has 32 of each
WHAT = "LUKS2 token"


class Token(Record):
    """Envelopes as JSON tables, not yet verified. `fragments` are by index as text; `keyslots` LUKS2's numbers."""

    volume_set: dict[str, Any]
    fragments: dict[str, Any]
    keyslots: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return the token as LUKS2 stores it."""
        return strict_json.serialise(
            {
                "type": TYPE,
                "keyslots": list(self.keyslots),
                "version": VERSION,
                "set": self.volume_set,
                "fragments": self.fragments,
            }
        )


def parse(value: object) -> Token:
    """Read the token's table."""
    fields = Fields(value, WHAT, TamperingError)
    fields.choice("type", (TYPE,))
    keyslots = fields.rows("keyslots", most=32)
    if not all(_is_number(keyslot, 0, MAX_KEYSLOT) for keyslot in keyslots):
        fields.fail("keyslots", "must be numbers in quotes")
    fields.version(VERSION)
    fragments = fields.raw_table("fragments")
    if not all(_is_number(index, 1, MAX_LEAVES) for index in fragments):
        fields.fail("fragments", "must be numbered")
    token = Token(volume_set=fields.raw_table("set"), fragments=fragments, keyslots=tuple(keyslots))
    fields.finish()
    return token


def find(tokens: dict[str, dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
    """Return number and table of the one keyquorum token among a header's tokens, or None."""
    ours = [(number, token) for number, token in tokens.items() if token.get("type") == TYPE]
    for number, _ in ours:
        if not _is_number(number, 0, MAX_NUMBER):
            raise TamperingError(WHAT, "", f"{number[:8]!r} is no number of a token")
    if len(ours) > 1:
        numbers = ", ".join(number for number, _ in ours)
        raise TamperingError(
            WHAT,
            "type",
            f"{len(ours)} tokens are of type {TYPE} (numbers {numbers}), not 1",
            "the one that you did not write goes by: cryptsetup token remove --token-id NUMBER DEVICE",
        )
    return (int(ours[0][0]), ours[0][1]) if ours else None


def _is_number(text: Any, low: int, high: int) -> bool:
    """Say whether a text is a number in the one way LUKS2 and we write it: ASCII digits, no zero in front."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 3:
        return False
    return str(int(text)) == text and low <= int(text) <= high
