# SPDX-License-Identifier: Apache-2.0
"""The LUKS2 token: the signed set, and the fragments of holders that keep only a key (docs/token.md §1)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPE = "keyquorum"
VERSION = 1
MAX_TOKEN = 512 * 1024
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
    fields.version(VERSION)
    fragments = fields.raw_table("fragments")
    if not all(index.isdigit() and len(index) <= 3 for index in fragments):
        fields.fail("fragments", "must be numbered")
    token = Token(
        volume_set=fields.raw_table("set"),
        fragments=fragments,
        keyslots=tuple(str(keyslot) for keyslot in keyslots),
    )
    fields.finish()
    return token


def find(tokens: dict[str, dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
    """Return number and table of the one keyquorum token among a header's tokens, or None."""
    ours = [(int(number), token) for number, token in tokens.items() if token.get("type") == TYPE]
    if len(ours) > 1:
        numbers = ", ".join(str(number) for number, _ in ours)
        raise TamperingError(WHAT, "type", f"{len(ours)} tokens are of type {TYPE} (numbers {numbers}), not 1")
    return ours[0] if ours else None
