# SPDX-License-Identifier: Apache-2.0
"""The payload of a fragment: read as written, damage and strangeness refused (docs/fragment.md §2)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.model import fragment, strict_json
from keyquorum.model.fragment import Description, Fragment
from unit.model.objects import DESCRIPTION, FRAGMENT, changed, judge

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=32)
TIMES = st.integers(0, fragment.MAX_TIME)
DESCRIPTIONS = st.builds(
    Description,
    volume=st.text(alphabet="0123456789abcdef-", min_size=1, max_size=40),
    set_id=st.binary(min_size=16, max_size=16),
    epoch=st.integers(1, fragment.MAX_EPOCH),
    index=st.integers(1, 255),
    total=st.integers(1, 255),
    threshold=st.integers(1, 255),
    path=st.lists(st.integers(1, 255), max_size=8).map(tuple),
    name=NAMES,
    kind=NAMES,
    recipient=st.binary(min_size=16, max_size=16),
    issued=TIMES,
    expires=TIMES,
)
FRAGMENTS = st.builds(
    Fragment,
    description=DESCRIPTIONS,
    kem=st.sampled_from(["x25519", "x-wing"]),
    enc=st.binary(max_size=1120),
    ciphertext=st.binary(max_size=256),
)


def parse(data: bytes) -> Fragment:
    return fragment.parse(data, "fragment vault")


@settings(deadline=None, max_examples=50)
@given(FRAGMENTS)
def test_round_trip(found: Fragment) -> None:
    assert parse(found.payload()) == found


def test_every_damage_is_refused_or_seen() -> None:
    judge(parse, FRAGMENT.payload(), TamperingError)


def test_the_largest_fragment_fits_its_cap() -> None:
    largest = Fragment(
        description=DESCRIPTION.with_(
            volume="f" * 40, epoch=fragment.MAX_EPOCH, path=(255,) * 8, name="n" * 32, kind="k" * 32, total=255
        ),
        kem="x-wing",
        enc=bytes(1120),
        ciphertext=bytes(32 + 128 + 16),
    )
    assert parse(largest.payload()) == largest


REFUSED: dict[str, tuple[tuple[str, ...], str, Any, str]] = {
    "unknown version": ((), "version", 2, "version: 2 is not known here (this program knows 1)"),
    "past version": ((), "version", 0, "version: 0 is not known here (this program knows 1)"),
    "epoch 0": ((), "epoch", 0, "epoch: 0 is not from 1 to 4294967295"),
    "index 256": ((), "index", 256, "index: 256 is not from 1 to 255"),
    "share number 0": ((), "path", [0], "path: must be share numbers"),
    "share number true": ((), "path", [True], "path: must be share numbers"),
    "share number as text": ((), "path", ["1"], "path: must be share numbers"),
    "path without end": ((), "path", [1] * 9, "path: has 9 items, more than 8"),
    "upper-case set": ((), "set", "0F" * 16, "set: must be 32 hexadecimal digits"),
    "name of a file": (("holder",), "name", "../../etc", "holder.name: '../../etc' may hold only a-z"),
    "long seal": (("sealed",), "ct", "AAAA" * 86, "sealed.ct: has 258 bytes, more than 256"),
    "far future": ((), "expires", 1 << 41, "expires: 2199023255552 is not from 0 to 1099511627776"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    path, field, value, words = REFUSED[name]
    with pytest.raises(TamperingError) as caught:
        parse(changed(FRAGMENT.payload(), path, lambda table: table.update({field: value})))
    assert str(caught.value).startswith(f"fragment vault: {words}")


def test_too_large() -> None:
    data = FRAGMENT.payload()
    assert parse(data + b" " * (fragment.MAX_PAYLOAD - len(data))) == FRAGMENT
    with pytest.raises(TamperingError, match="8193 bytes are more than the 8192 allowed"):
        parse(data + b" " * (fragment.MAX_PAYLOAD - len(data) + 1))


@settings(deadline=None, max_examples=50)
@given(DESCRIPTIONS, st.data())
def test_the_seal_is_bound_to_every_field_of_the_description(description: Description, data: st.DataObject) -> None:
    other = data.draw(DESCRIPTIONS)
    for field in Description._fields:
        changed_one = description.with_(**{field: getattr(other, field)})
        assert (changed_one.info() == description.info()) == (changed_one == description)


def test_the_seals_info_is_domain_and_payload_without_the_seal() -> None:
    payload = json.loads(FRAGMENT.payload())
    del payload["sealed"]
    assert DESCRIPTION.info() == b"keyquorum/v1/fragment\0" + strict_json.serialise(payload)
