# SPDX-License-Identifier: Apache-2.0
"""The payload of a set: read as written, damage refused, and nothing of it missing in what is bound (docs/token.md §2)."""

from __future__ import annotations

from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.model import volume_set
from keyquorum.model.tree import Leaf, Node
from keyquorum.model.volume_set import DIRECT, VolumeSet
from unit.model.objects import DESCRIPTION, HEADER, UUID, VOLUME_SET, changed, judge


def parse(data: bytes) -> VolumeSet:
    return volume_set.parse(data, "set")


def test_round_trip() -> None:
    for found in (
        VOLUME_SET,
        VOLUME_SET.with_(mode=DIRECT, nonce=b"", wrapped=b"", measure_pcr=-1, keyslot=31),
        VOLUME_SET.with_(header=HEADER.with_(requirements="offline-reencrypt")),
    ):
        assert parse(found.payload()) == found


def test_every_damage_is_refused_or_seen() -> None:
    judge(parse, VOLUME_SET.payload(), TamperingError, free=("where",))


REFUSED: dict[str, tuple[tuple[str | int, ...], str, Any, str]] = {
    "unknown version": ((), "version", 7, "version: 7 is not known here (this program knows 1)"),
    "unknown mode": ((), "mode", "plain", "mode: 'plain' is none of wrapped, direct"),
    "tiny key": ((), "key_size", 8, "key_size: 8 is not from 16 to 128"),
    "huge key": ((), "key_size", 129, "key_size: 129 is not from 16 to 128"),
    "PCR 24": ((), "measure_pcr", 24, "measure_pcr: 24 is not from -1 to 23"),
    "keyslot 32": ((), "keyslot", 32, "keyslot: 32 is not from -1 to 31"),
    "requirements as a list": (("header",), "requirements", [], "header.requirements: must be a text"),
    "fewer fragments than the policy": ((), "policy", {"threshold": 1, "children": [1]}, "fragments: are not as many"),
    "no fragments": ((), "fragments", [], "fragments: are not as many as the policy has"),
    "index out of order": (("fragments", 1), "index", 3, "fragments[1].index: 3 is not from 2 to 2"),
    "short commitment": (("fragments", 0), "commitment", "AAEC", "fragments[0].commitment: has 3 bytes, not 32"),
    "where is a list": (("fragments", 2), "where", [], "fragments[2].where: must be a table"),
    "kind of holder as a path": (("fragments", 2), "kind", "os/path", "fragments[2].kind: 'os/path' may hold only"),
    "long nonce": (("key",), "nonce", "A" * 36, "key.nonce: has 27 bytes, more than 24"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    path, field, value, words = REFUSED[name]
    with pytest.raises(TamperingError) as caught:
        parse(changed(VOLUME_SET.payload(), path, lambda table: table.update({field: value})))
    assert str(caught.value).startswith(f"set: {words}")


def test_too_large() -> None:
    data = VOLUME_SET.payload()
    assert parse(data.ljust(volume_set.MAX_PAYLOAD)) == VOLUME_SET
    with pytest.raises(TamperingError, match="are more than the"):
        parse(data.ljust(volume_set.MAX_PAYLOAD + 1))


OTHERS: dict[str, Any] = {
    "volume": "f" * 36,
    "set_id": bytes(16),
    "epoch": 4,
    "header": HEADER.with_(digest="00" * 32),
    "policy": Node(threshold=1, children=(Leaf(index=1), Leaf(index=2), Leaf(index=3))),
}


@pytest.mark.parametrize("field", OTHERS)
def test_the_wrapped_key_is_bound_to(field: str) -> None:
    assert VOLUME_SET.with_(**{field: OTHERS[field]}).binding() != VOLUME_SET.binding()


@pytest.mark.parametrize("field", HEADER._fields)
def test_the_wrapped_key_is_bound_to_every_fact_of_the_header(field: str) -> None:
    header = HEADER.with_(**{field: "other"})
    assert VOLUME_SET.with_(header=header).binding() != VOLUME_SET.binding()


def test_the_size_of_what_is_split() -> None:
    assert (VOLUME_SET.secret_size, VOLUME_SET.with_(mode=DIRECT).secret_size) == (32, 64)


MISMATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "volume": ({"volume": "f" * 36}, f"volume is {'f' * 36}, the set says {UUID}"),
    "set": ({"set_id": b"\xff" * 16}, f"set id is {'ff' * 16}, the set says {bytes(range(16)).hex()}"),
    "epoch": ({"epoch": 2}, "epoch is 2, the set says 3"),
    "other place": ({"index": 1}, "index is 1, the set says 2"),
    "index outside": ({"index": 4}, "index is 4, the set says 2"),
    "total": ({"total": 4}, "total is 4, the set says 3"),
    "threshold": ({"threshold": 1}, "threshold is 1, the set says 2"),
    "path": ({"path": (1, 2)}, "path is (1, 2), the set says (2,)"),
    "no path": ({"path": ()}, "path is (), the set says (2,)"),
    "name": ({"name": "board"}, "name is board, the set says vault"),
    "kind": ({"kind": "tpm"}, "kind is tpm, the set says disk"),
    "recipient": ({"recipient": bytes(16)}, f"recipient is {'00' * 16}, the set says {bytes(range(16, 32)).hex()}"),
}


def test_a_fragment_of_this_set_fits() -> None:
    assert VOLUME_SET.mismatch(DESCRIPTION, 2) == ""
    assert VOLUME_SET.mismatch(DESCRIPTION, 1) == "index is 2, the set says 1"
    assert VOLUME_SET.mismatch(DESCRIPTION.with_(issued=1, expires=2), 2) == ""  # judged by the clock, not by the set


@pytest.mark.parametrize("name", MISMATCHES)
def test_mismatch(name: str) -> None:
    changes, words = MISMATCHES[name]
    assert VOLUME_SET.mismatch(DESCRIPTION.with_(**changes), 2) == words
