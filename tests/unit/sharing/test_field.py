# SPDX-License-Identifier: Apache-2.0
"""GF(2^8)/0x11b: public bytes against a slow independent multiplication, lanes against public bytes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.sharing import field
from unit.sharing.oracle import Tainted, slow_multiply

BYTE = st.integers(0, 255)
LANES = st.binary(min_size=1, max_size=70)


def test_every_product_equals_the_slow_one() -> None:
    for a in range(256):
        for b in range(256):
            assert field.multiply(a, b) == slow_multiply(a, b, 0x11B)


def test_published_field_facts() -> None:
    # FIPS 197 §4.2 and HashiCorp Vault's own test
    assert field.multiply(0x57, 0x83) == 0xC1
    assert field.multiply(0x57, 0x13) == 0xFE
    assert field.multiply(3, 7) == 9
    assert field.divide(6, 3) == 2


def test_division_undoes_multiplication() -> None:
    for a in range(256):
        for b in range(1, 256):
            assert field.divide(field.multiply(a, b), b) == a


def test_division_by_zero_is_refused() -> None:
    for a in (0, 1, 255):
        with pytest.raises(ZeroDivisionError):
            field.divide(a, 0)


@settings(deadline=None)
@given(value=LANES, factor=BYTE, added=st.data())
def test_lanes_multiply_like_single_bytes(value: bytes, factor: int, added: st.DataObject) -> None:
    lanes = len(value)
    accumulator = added.draw(st.binary(min_size=lanes, max_size=lanes))
    masks = field.masks(lanes)
    result = field.multiply_add(int.from_bytes(accumulator, "little"), int.from_bytes(value, "little"), factor, masks)
    expected = bytes(a ^ field.multiply(v, factor) for a, v in zip(accumulator, value, strict=True))
    assert result.to_bytes(lanes, "little") == expected


@given(value=LANES)
def test_doubling_stays_within_its_lane(value: bytes) -> None:
    masks = field.masks(len(value))
    doubled = field.double(int.from_bytes(value, "little"), masks)
    assert doubled.to_bytes(len(value), "little") == bytes(field.multiply(v, 2) for v in value)


@given(value=LANES)
def test_sixteenfold_stays_within_its_lane(value: bytes) -> None:
    result = field.sixteenfold(int.from_bytes(value, "little"), field.masks(len(value)))
    assert result.to_bytes(len(value), "little") == bytes(field.multiply(v, 16) for v in value)


def test_logarithms_add_up_to_products() -> None:
    for a in range(1, 256):
        for b in (1, 2, 3, 0x57, 255):
            assert field.exponential(field.LOGARITHMS[a] + field.LOGARITHMS[b]) == field.multiply(a, b)
            assert field.exponential(field.LOGARITHMS[a] - field.LOGARITHMS[b]) == field.divide(a, b)


@given(value=LANES, factor=BYTE)
def test_lanes_are_never_looked_up_or_branched_on(value: bytes, factor: int) -> None:
    masks = field.masks(len(value))
    packed = int.from_bytes(value, "little")
    accumulator = cast("Any", Tainted(packed))
    tainted = cast("Any", field.multiply_add(accumulator, cast("Any", Tainted(packed)), factor, masks))
    assert tainted.reveal() == field.multiply_add(packed, packed, factor, masks)


def test_the_taint_is_able_to_catch_a_lookup_and_a_branch() -> None:
    secret = cast("Any", Tainted(1))
    with pytest.raises(TypeError):
        [0, 1][secret]
    with pytest.raises(AssertionError):
        bool(secret)
    with pytest.raises(AssertionError):
        _ = secret == 1
    with pytest.raises(TypeError):
        [0] << secret
