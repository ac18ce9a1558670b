# SPDX-License-Identifier: Apache-2.0
"""The payload of a set: all fragments of one volume, what they open and where they are (docs/token.md §2).

Signed by the owner and kept in the LUKS2 token. Nothing in the token is believed before this signature.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json, tree
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_EPOCH, MAX_TIME, Description
from keyquorum.model.header import HeaderDescriptor
from keyquorum.model.tree import Node
from keyquorum.native import sodium
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
MAX_PAYLOAD = 24 * 1024
WRAPPED, DIRECT = "wrapped", "direct"
KEK_SIZE = 32
_MAX_REQUIREMENTS = 256
_BINDING = b"keyquorum/v1/binding\x00"


class Placement(Record):
    """One fragment of the set: its holder, its commitment, and where the holder keeps what it needs.

    `where` is the holder's own; its file in `holders/` reads it.
    """

    index: int
    name: str
    kind: str
    recipient: bytes
    commitment: bytes
    where: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the signed form."""
        return {
            "index": self.index,
            "name": self.name,
            "kind": self.kind,
            "recipient": self.recipient.hex(),
            "commitment": strict_json.to_base64(self.commitment),
            "where": self.where,
        }


class VolumeSet(Record):
    """All fragments of one volume in one epoch.

    `mode` is "wrapped" (a KEK is split, `nonce` and `wrapped` hold the volume key under it) or "direct" (the volume
    key itself is split and both are empty). `measure_pcr` is the PCR extended after opening, -1 for none.
    `keyslot` is the keyslot opened by the KEK's passphrase, -1 for none.
    """

    volume: str
    set_id: bytes
    epoch: int
    mode: str
    key_size: int
    issued: int
    header: HeaderDescriptor
    policy: Node
    placements: tuple[Placement, ...]
    nonce: bytes
    wrapped: bytes
    measure_pcr: int
    keyslot: int

    @property
    def secret_size(self) -> int:
        """Size in bytes of what is split: the KEK, or in direct mode the volume key."""
        return self.key_size if self.mode == DIRECT else KEK_SIZE

    def placement(self, index: int) -> Placement:
        """Return the fragment with this index."""
        return self.placements[index - 1]

    def binding(self) -> bytes:
        """Return the associated data of the wrapped volume key (I5)."""
        bound = {
            "volume": self.volume,
            "set": self.set_id.hex(),
            "epoch": self.epoch,
            "header": self.header.to_json(),
            "policy": sodium.sha256(strict_json.serialise(tree.to_json(self.policy))).hex(),
        }
        return _BINDING + strict_json.serialise(bound)

    def payload(self) -> bytes:
        """Return the bytes that the owner signs."""
        return strict_json.serialise(
            {
                "version": VERSION,
                "volume": self.volume,
                "set": self.set_id.hex(),
                "epoch": self.epoch,
                "mode": self.mode,
                "key_size": self.key_size,
                "issued": self.issued,
                "header": self.header.to_json(),
                "policy": tree.to_json(self.policy),
                "fragments": [placement.to_json() for placement in self.placements],
                "key": {"nonce": strict_json.to_base64(self.nonce), "ct": strict_json.to_base64(self.wrapped)},
                "measure_pcr": self.measure_pcr,
                "keyslot": self.keyslot,
            }
        )

    def mismatch(self, description: Description, index: int) -> str:
        """Return what in a description does not fit fragment `index` of this set, or "" (docs/fragment.md §4)."""
        placement = self.placement(index)
        path, node = {number: (path, node) for number, path, node in tree.leaves(self.policy)}[index]
        expected = {
            "volume": self.volume,
            "set_id": self.set_id,
            "epoch": self.epoch,
            "index": index,
            "total": len(self.placements),
            "threshold": node.threshold,
            "path": path,
            "name": placement.name,
            "kind": placement.kind,
            "recipient": placement.recipient,
        }
        for field, wanted in expected.items():
            found = getattr(description, field)
            if found != wanted:
                shown = (wanted.hex(), found.hex()) if isinstance(wanted, bytes) else (wanted, found)
                return f"{field.replace('_', ' ')} is {shown[1]}, the set says {shown[0]}"
        return ""


def parse(payload: bytes, what: str) -> VolumeSet:
    """Read a set whose signature was verified."""
    fields = Fields.read(payload, what, MAX_PAYLOAD, TamperingError)
    fields.version(VERSION)
    header, key = fields.table("header"), fields.table("key")
    policy = tree.parse(fields.take("policy"), what, TamperingError)
    found = VolumeSet(
        volume=fields.text("volume", longest=40),
        set_id=fields.hexadecimal("set", 16),
        epoch=fields.integer("epoch", 1, MAX_EPOCH),
        mode=fields.choice("mode", (WRAPPED, DIRECT)),
        key_size=fields.integer("key_size", 16, 128),
        issued=fields.integer("issued", 0, MAX_TIME),
        header=HeaderDescriptor(
            uuid=header.text("uuid", longest=40),
            segments=header.text("segments", longest=2048),
            digest=header.text("digest", longest=64),
            requirements=_requirements(header),
        ),
        policy=policy,
        placements=tuple(
            _placement(fields.row("fragments", i, row), i) for i, row in enumerate(fields.rows("fragments"))
        ),
        nonce=key.data("nonce", longest=24),
        wrapped=key.data("ct", longest=256),
        measure_pcr=fields.integer("measure_pcr", -1, 23),
        keyslot=fields.integer("keyslot", -1, 31),
    )
    for fully_read in (header, key, fields):
        fully_read.finish()
    if len(found.placements) != sum(1 for _ in tree.leaves(policy)):
        raise TamperingError(what, "fragments", "are not as many as the policy has")
    return found


def _requirements(header: Fields) -> str:
    """Take the requirements of a header: a text, which is empty for an ordinary one."""
    value = header.take("requirements")
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_REQUIREMENTS:
        header.fail("requirements", f"must be a text of at most {_MAX_REQUIREMENTS} characters")
    return value


def _placement(fields: Fields, position: int) -> Placement:
    placement = Placement(
        index=fields.integer("index", position + 1, position + 1),
        name=fields.name("name"),
        kind=fields.name("kind"),
        recipient=fields.hexadecimal("recipient", 16),
        commitment=fields.data("commitment", size=32),
        where=fields.raw_table("where"),
    )
    fields.finish()
    return placement
