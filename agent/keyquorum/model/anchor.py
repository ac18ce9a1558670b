# SPDX-License-Identifier: Apache-2.0
"""The trust anchor: who may describe a volume, and from which epoch on (docs/token.md §5).

One file for each volume under /etc/keyquorum/volumes; the initramfs carries those of its own volumes. It comes from
the machine's owner and not from the disk that it is used to judge.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_EPOCH
from keyquorum.record import Record

VERSION = 1
MAX_ANCHOR = 16 * 1024


class Anchor(Record):
    """The owners' Ed25519 public keys (32 bytes each) and the lowest epoch accepted for one volume."""

    volume: str
    owners: tuple[bytes, ...]
    epoch: int

    def to_json(self) -> bytes:
        """Return the file's content."""
        return strict_json.serialise(
            {
                "version": VERSION,
                "volume": self.volume,
                "owners": [strict_json.to_base64(owner) for owner in self.owners],
                "epoch": self.epoch,
            }
        )


def parse(data: bytes, what: str) -> Anchor:
    """Read an anchor file; `what` is its path."""
    fields = Fields.read(data, what, MAX_ANCHOR, MalformedError)
    fields.version(VERSION)
    owners = []
    for index, item in enumerate(fields.rows("owners", most=8)):
        owners.append(Fields({"key": item}, what, MalformedError, f"owners[{index}]").data("key", size=32))
    anchor = Anchor(
        volume=fields.text("volume", longest=40),
        owners=tuple(owners),
        epoch=fields.integer("epoch", 1, MAX_EPOCH),
    )
    fields.finish()
    if not owners:
        raise MalformedError(what, "owners", "is empty")
    return anchor
