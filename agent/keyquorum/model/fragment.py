# SPDX-License-Identifier: Apache-2.0
"""The payload of a fragment: one sealed share and its description (docs/fragment.md §2)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.tree import MAX_LEAVES
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
MAX_PAYLOAD = 8 * 1024
MAX_EPOCH = (1 << 32) - 1
MAX_TIME = 1 << 40
BLIND_SIZE = 32
_INFO = b"keyquorum/v1/fragment\x00"


class Description(Record):
    """Everything about a fragment but its secret part. Times are seconds since 1970 in UTC; `expires` 0 is never."""

    volume: str
    set_id: bytes
    epoch: int
    index: int
    total: int
    threshold: int
    path: tuple[int, ...]
    name: str
    kind: str
    recipient: bytes
    issued: int
    expires: int

    def to_json(self) -> dict[str, Any]:
        """Return the signed form."""
        return {
            "version": VERSION,
            "volume": self.volume,
            "set": self.set_id.hex(),
            "epoch": self.epoch,
            "index": self.index,
            "total": self.total,
            "threshold": self.threshold,
            "path": list(self.path),
            "holder": {"name": self.name, "kind": self.kind},
            "recipient": self.recipient.hex(),
            "issued": self.issued,
            "expires": self.expires,
        }

    def info(self) -> bytes:
        """Return the HPKE info that binds the sealed share to this description."""
        return _INFO + strict_json.serialise(self.to_json())


class Fragment(Record):
    """A description with its share, sealed to the recipient: (blind ‖ share) under HPKE."""

    description: Description
    kem: str
    enc: bytes
    ciphertext: bytes

    def payload(self) -> bytes:
        """Return the bytes that the owner signs."""
        sealed = {
            "kem": self.kem,
            "enc": strict_json.to_base64(self.enc),
            "ct": strict_json.to_base64(self.ciphertext),
        }
        return strict_json.serialise(self.description.to_json() | {"sealed": sealed})


def parse(payload: bytes, what: str) -> Fragment:
    """Read a fragment whose signature was verified."""
    fields = Fields.read(payload, what, MAX_PAYLOAD, TamperingError)
    fields.version(VERSION)
    holder, sealed = fields.table("holder"), fields.table("sealed")
    path = fields.rows("path", most=8)
    if not all(type(number) is int and 1 <= number <= MAX_LEAVES for number in path):  # true is an int, but no number
        fields.fail("path", "must be share numbers")
    description = Description(
        volume=fields.text("volume", longest=40),
        set_id=fields.hexadecimal("set", 16),
        epoch=fields.integer("epoch", 1, MAX_EPOCH),
        index=fields.integer("index", 1, MAX_LEAVES),
        total=fields.integer("total", 1, MAX_LEAVES),
        threshold=fields.integer("threshold", 1, MAX_LEAVES),
        path=tuple(path),
        name=holder.name("name"),
        kind=holder.name("kind"),
        recipient=fields.hexadecimal("recipient", 16),
        issued=fields.integer("issued", 0, MAX_TIME),
        expires=fields.integer("expires", 0, MAX_TIME),
    )
    fragment = Fragment(
        description=description,
        kem=sealed.text("kem", longest=16),
        enc=sealed.data("enc", longest=2048),
        ciphertext=sealed.data("ct", longest=256),
    )
    for fully_read in (holder, sealed, fields):
        fully_read.finish()
    return fragment
