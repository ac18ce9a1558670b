# SPDX-License-Identifier: Apache-2.0
"""The trust anchor's file: written by an administrator's machine, and still read strictly (docs/token.md §5)."""

from __future__ import annotations

from typing import Any

import pytest

from keyquorum.errors import MalformedError
from keyquorum.model import anchor
from keyquorum.model.anchor import Anchor
from unit.model.objects import ANCHOR, changed, judge

FILE = "/etc/keyquorum/volumes/x.json"


def parse(data: bytes) -> Anchor:
    return anchor.parse(data, FILE)


def test_round_trip() -> None:
    assert parse(ANCHOR.to_json() + b"\n") == ANCHOR


def test_every_damage_is_refused_or_seen() -> None:
    judge(parse, ANCHOR.to_json(), MalformedError)


REFUSED: dict[str, tuple[str, Any, str]] = {
    "unknown version": ("version", 2, "version: 2 is not known here (this program knows 1)"),
    "nobody": ("owners", [], "owners: is empty"),
    "short key": ("owners", ["AAEC"], "owners[0].key: has 3 bytes, not 32"),
    "key as a number": ("owners", [5], "owners[0].key: must be base64"),
    "many owners": ("owners", ["AAEC"] * 9, "owners: has 9 items, more than 8"),
    "epoch 0": ("epoch", 0, "epoch: 0 is not from 1 to 4294967295"),
    "epoch as a text": ("epoch", "3", "epoch: must be a whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    field, value, words = REFUSED[name]
    with pytest.raises(MalformedError) as caught:
        parse(changed(ANCHOR.to_json(), (), lambda table: table.update({field: value})))
    assert str(caught.value) == f"{FILE}: {words}"
    assert caught.value.exit_code == 2


def test_too_large() -> None:
    with pytest.raises(MalformedError, match="16385 bytes are more than the 16384 allowed"):
        parse(ANCHOR.to_json().ljust(anchor.MAX_ANCHOR + 1))
