# SPDX-License-Identifier: Apache-2.0
"""Keys, logs and checkpoints for the tests of a custodian."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyquorum.custodian import checkpoint, entry, merkle, note
from keyquorum.custodian.checkpoint import Checkpoint, Verified
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.custodian.note import NoteSigner
from keyquorum.evidence.result import Check, Outcome
from keyquorum.model.fragment_name import FragmentName
from unit.custodian.naive_tree import Stored

NOW = 1_800_000_000
ORIGIN = "custodian.example/paris"


def private(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


LOG = NoteSigner(ORIGIN, note.ED25519, private(1))
WITNESSES = tuple(
    NoteSigner(f"custodian.example/{name}", note.COSIGNATURE, private(seed))
    for seed, name in enumerate(("oslo", "rome"), 2)
)
KEYS = tuple(witness.key for witness in WITNESSES)
FRAGMENT = FragmentName(volume="6d1c7d1e-5ab0-4d6f-8b0e-000000000001", set_id=bytes(range(16)), epoch=3, index=2)
MACHINE = Actor(role="machine", name="web-1", key="ab" * 32)
CHECK = Check(name="policy.hours", spec="§5", expected="mon-fri", actual="sunday", outcome=Outcome.FAILED)


def an_entry(number: int, reason: str = "") -> Entry:
    return Entry(
        number=number,
        at=NOW + number,
        kind=entry.DECISION,
        act="denied",
        who=MACHINE,
        machine="web-1",
        fragment=FRAGMENT,
        reason=reason or f"reason {number}",
        checks=(CHECK,),
        facts={"nonce-sha256": "00" * 32, "attestation": "trusted"},
    )


def bodies(count: int) -> list[bytes]:
    return [an_entry(number).serialise() for number in range(count)]


def tree(entries: list[bytes]) -> Stored:
    return Stored([merkle.leaf_hash(body) for body in entries])


def signed(entries: list[bytes], size: int, log: NoteSigner = LOG) -> bytes:
    root = merkle.root(size, tree(entries).read)
    return checkpoint.sign(Checkpoint(origin=log.key.name, size=size, root=root), log)


def verified(entries: list[bytes], size: int) -> Verified:
    return checkpoint.verify(signed(entries, size), LOG.key)
