# SPDX-License-Identifier: Apache-2.0
"""Which fragment: the four fields by which machines, owners and custodians name one (docs/custodian.md §3)."""

from __future__ import annotations

from keyquorum.model.fragment import MAX_EPOCH
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.fields import Fields

_UUID = 36
_UUID_CHARACTERS = frozenset("0123456789abcdef-")


class FragmentName(Record):
    """LUKS2 UUID, set id (16 bytes), epoch, index."""

    volume: str
    set_id: bytes
    epoch: int
    index: int

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"volume": self.volume, "set": self.set_id.hex(), "epoch": self.epoch, "index": self.index}


def take(fields: Fields) -> FragmentName:
    """Read the four fields out of a table that may have others."""
    volume = fields.text("volume", longest=_UUID)
    if len(volume) != _UUID or not _UUID_CHARACTERS.issuperset(volume):
        fields.fail("volume", "is not a LUKS2 UUID in lower case")
    return FragmentName(
        volume=volume,
        set_id=fields.hexadecimal("set", 16),
        epoch=fields.integer("epoch", 1, MAX_EPOCH),
        index=fields.integer("index", 1, 255),
    )
