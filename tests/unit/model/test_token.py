# SPDX-License-Identifier: Apache-2.0
"""The LUKS2 token and the search for it: attacker-writable input, nothing of it verified yet (docs/token.md §1)."""

from __future__ import annotations

from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json, token
from keyquorum.model.header import MAX_METADATA
from keyquorum.model.token import Token
from unit.model.objects import ENVELOPE, changed, judge

TOKEN = Token(volume_set=ENVELOPE, fragments={"1": ENVELOPE, "255": ENVELOPE}, keyslots=("3",))


def parse(data: bytes) -> Token:
    """Read a token as it comes out of a header, whose JSON has been through the same parser."""
    return token.parse(strict_json.parse(data, "LUKS2 header", MAX_METADATA, TamperingError))


def test_round_trip() -> None:
    assert parse(TOKEN.to_json()) == TOKEN
    assert parse(TOKEN.with_(keyslots=()).to_json()).keyslots == ()


def test_it_is_a_token_as_luks2_asks_for_it() -> None:
    value: Any = strict_json.parse(TOKEN.to_json(), "token", MAX_METADATA, TamperingError)
    assert (value["type"], value["keyslots"]) == ("keyquorum", ["3"])


def test_every_damage_is_refused_or_seen() -> None:
    judge(parse, TOKEN.to_json(), TamperingError, free=("set", "fragments"))


REFUSED: dict[str, tuple[str, Any, str]] = {
    "other type": ("type", "clevis", "type: 'clevis' is none of keyquorum"),
    "unknown version": ("version", 2, "version: 2 is not known here (this program knows 1)"),
    "set is a list": ("set", [], "set: must be a table"),
    "fragments are a list": ("fragments", [], "fragments: must be a table"),
    "a name for a number": ("fragments", {"first": {}}, "fragments: must be numbered"),
    "fragment 0": ("fragments", {"0": {}}, "fragments: must be numbered"),
    "fragment 256": ("fragments", {"256": {}}, "fragments: must be numbered"),
    "a number spelt otherwise": ("fragments", {"01": {}}, "fragments: must be numbered"),
    "a digit that is none of ours": ("fragments", {"٣": {}}, "fragments: must be numbered"),
    "a superscript": ("fragments", {"²": {}}, "fragments: must be numbered"),
    "keyslot as a number": ("keyslots", [3], "keyslots: must be numbers in quotes"),
    "keyslot as a word": ("keyslots", ["all"], "keyslots: must be numbers in quotes"),
    "keyslots as a text": ("keyslots", "3", "keyslots: must be a list"),
    "many keyslots": ("keyslots", ["1"] * 33, "keyslots: has 33 items, more than 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    field, value, words = REFUSED[name]
    with pytest.raises(TamperingError) as caught:
        parse(changed(TOKEN.to_json(), (), lambda table: table.update({field: value})))
    assert str(caught.value) == f"LUKS2 token: {words}"


def test_finding_the_one_of_ours() -> None:
    ours, other = {"type": "keyquorum"}, {"type": "clevis"}
    assert token.find({}) is None
    assert token.find({"0": other, "3": {"keyslots": []}}) is None
    assert token.find({"0": other, "7": ours}) == (7, ours)


def test_two_of_ours_are_refused() -> None:
    with pytest.raises(TamperingError, match=r"2 tokens are of type keyquorum \(numbers 1, 4\), not 1"):
        token.find({"1": {"type": "keyquorum"}, "4": {"type": "keyquorum"}})


def test_a_token_without_a_number() -> None:
    for number in ("x", "-1", "²", "", "99999999999"):
        with pytest.raises(TamperingError, match="is no number of a token"):
            token.find({number: {"type": "keyquorum"}})
