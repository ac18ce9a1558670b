# SPDX-License-Identifier: Apache-2.0
"""Shamir's scheme: that k shares give the secret, that k-1 give nothing, and every rule of docs/sharing.md §5."""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.sharing import shamir
from unit.sharing.oracle import Tainted, slow_interpolate

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = int.from_bytes(bytes(range(1, 33)), "little")


def kernel(count: int) -> int:
    return int.from_bytes(os.urandom(count), "little")


def fixed(value: int) -> Callable[[int], int]:
    return lambda _count: value


def every_split(secret: int, threshold: int, total: int) -> list[bytes]:
    """Split a byte with every possible draw of random bytes at once, one draw for each lane; return share values."""
    draws = 256 ** (threshold - 1)
    columns = [bytes(draw >> (8 * place) & 0xFF for draw in range(draws)) for place in range(threshold - 1)]
    drawn = int.from_bytes(b"".join(columns), "little")
    lanes = int.from_bytes(bytes([secret]) * draws, "little")
    return [share.to_bytes(draws, "little") for share in shamir.split(lanes, draws, threshold, total, fixed(drawn))]


@st.composite
def schemes(draw: st.DrawFn, most: int = 24) -> tuple[bytes, int, int, list[int]]:
    """A secret, k, n and which k of the n come, in any order."""
    total = draw(st.integers(2, most))
    threshold = draw(st.integers(2, total))
    secret = draw(st.binary(min_size=1, max_size=130))
    numbers = draw(st.permutations(range(1, total + 1)))
    return secret, threshold, total, numbers[:threshold]


# What must work


@settings(deadline=None)
@given(scheme=schemes())
def test_any_k_of_n_combine_in_any_order(scheme: tuple[bytes, int, int, list[int]]) -> None:
    secret, threshold, total, numbers = scheme
    shares = shamir.split(int.from_bytes(secret, "little"), len(secret), threshold, total, kernel)
    assert len(shares) == total
    combined = shamir.combine([(number, shares[number - 1]) for number in numbers], len(secret))
    assert combined.to_bytes(len(secret), "little") == secret


@pytest.mark.parametrize(("threshold", "total"), [(2, 2), (2, 255), (128, 255), (129, 255), (254, 255), (255, 255)])
def test_the_largest_schemes(threshold: int, total: int) -> None:
    shares = shamir.split(SECRET, 32, threshold, total, kernel)
    numbered = list(enumerate(shares, 1))
    assert shamir.combine(numbered[:threshold], 32) == SECRET
    assert shamir.combine(numbered[-threshold:], 32) == SECRET


def test_every_quorum_of_3_of_6() -> None:
    shares = list(enumerate(shamir.split(SECRET, 32, 3, 6, kernel), 1))
    for quorum in combinations(shares, 3):
        assert shamir.combine(quorum, 32) == SECRET


@settings(deadline=None, max_examples=30)
@given(scheme=schemes(most=10))
def test_shares_lie_on_one_polynomial_of_degree_below_k(scheme: tuple[bytes, int, int, list[int]]) -> None:
    secret, threshold, total, numbers = scheme
    size = len(secret)
    values = shamir.split(int.from_bytes(secret, "little"), size, threshold, total, kernel)
    chosen = [(number, values[number - 1].to_bytes(size, "little")) for number in numbers]
    for number in range(1, total + 1):
        assert slow_interpolate(chosen, number) == values[number - 1].to_bytes(size, "little")
        assert shamir.combine([(n, values[n - 1]) for n in numbers], size, number) == values[number - 1]


@given(secret=st.integers(0, 255), drawn=st.binary(min_size=2, max_size=2))
def test_combine_agrees_with_a_text_book(secret: int, drawn: bytes) -> None:
    shares = shamir.split(secret, 1, 3, 5, fixed(int.from_bytes(drawn, "little")))
    for quorum in combinations(enumerate(shares, 1), 3):
        assert slow_interpolate([(number, bytes([value])) for number, value in quorum], 0) == bytes([secret])


# Secrecy: proofs by exhaustion, not by statistics


@pytest.mark.parametrize("secret", [0, 1, 0x80, 255])
def test_fewer_than_threshold_shares_are_uniform_whatever_the_secret(secret: int) -> None:
    # All 256^(k-1) draws: each value of each k-1 shares must come up exactly once, for every secret. Then these
    # shares have the same (uniform) distribution whatever the secret is, which is what "give nothing" means.
    for share in every_split(secret, 2, 255):
        assert sorted(share) == list(range(256))
    for first, second in combinations(every_split(secret, 3, 5), 2):
        assert len(set(zip(first, second, strict=True))) == 65536


def test_k_shares_are_not_uniform() -> None:
    # The control of the test above: it can tell when shares do depend on the secret.
    first, second = every_split(7, 2, 2)
    assert len(set(zip(first, second, strict=True))) == 256


def test_one_share_of_many_splits_tells_nothing() -> None:
    # The attack on old Vault: a byte that was split very often; the value that share 1 never takes is the secret.
    seen = set(shamir.split(int.from_bytes(bytes([0x2A]) * 16384, "little"), 16384, 2, 3, kernel)[0].to_bytes(16384))
    assert seen == set(range(256))  # a given value is missing with a chance of e^-64


def test_highest_coefficient_may_be_zero() -> None:
    assert shamir.split(SECRET, 32, 2, 3, fixed(0)) == [SECRET] * 3
    only_low = int.from_bytes(b"\x05" * 32 + b"\x00" * 32, "little")
    shares = list(enumerate(shamir.split(SECRET, 32, 3, 5, fixed(only_low)), 1))
    assert shamir.combine(shares[:2], 32) == SECRET  # degree 1 came out of threshold 3, and that is right


def test_random_bytes_are_used_once_each_and_whole() -> None:
    asked: list[int] = []

    def random(count: int) -> int:
        asked.append(count)
        return kernel(count)

    shamir.split(SECRET, 32, 5, 9, random)
    assert asked == [32 * 4]
    # each single bit of the draw moves some share: none is masked off or ignored
    base = shamir.split(0, 2, 3, 5, fixed(0))
    for bit in range(8 * 4):
        assert shamir.split(0, 2, 3, 5, fixed(1 << bit)) != base


def test_same_random_bytes_give_same_shares() -> None:
    drawn = kernel(64)
    assert shamir.split(SECRET, 32, 3, 7, fixed(drawn)) == shamir.split(SECRET, 32, 3, 7, fixed(drawn))
    assert shamir.split(SECRET, 32, 3, 7, fixed(drawn)) != shamir.split(SECRET, 32, 3, 7, fixed(drawn ^ 1))


def test_lanes_do_not_mix() -> None:
    drawn = kernel(64)
    whole = shamir.split(SECRET, 32, 3, 5, fixed(drawn))
    drawn_bytes, secret_bytes = drawn.to_bytes(64, "little"), SECRET.to_bytes(32, "little")
    for lane in range(32):
        alone = int.from_bytes(bytes([drawn_bytes[lane], drawn_bytes[32 + lane]]), "little")
        expected = shamir.split(secret_bytes[lane], 1, 3, 5, fixed(alone))
        assert [share.to_bytes(32, "little")[lane] for share in whole] == expected


def test_no_secret_is_looked_up_or_branched_on() -> None:
    drawn = kernel(32 * 4)
    expected = shamir.split(SECRET, 32, 5, 9, fixed(drawn))
    tainted_random = cast("Any", lambda _count: Tainted(drawn))
    shares = cast("list[Any]", shamir.split(cast("Any", Tainted(SECRET)), 32, 5, 9, tainted_random))
    assert [share.reveal() for share in shares] == expected
    combined = cast("Any", shamir.combine(list(enumerate(shares, 1))[2:7], 32))
    assert combined.reveal() == SECRET


# What must not work


@pytest.mark.parametrize("threshold", [-1, 0, 1])
def test_threshold_below_2_is_refused(threshold: int) -> None:
    with pytest.raises(ValueError, match="must be 2 <= threshold"):
        shamir.split(SECRET, 32, threshold, 5, kernel)


def test_threshold_above_total_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold 4 of 3"):
        shamir.split(SECRET, 32, 4, 3, kernel)


def test_more_than_255_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="<= 255"):
        shamir.split(SECRET, 32, 2, 256, kernel)


def test_a_share_alone_is_refused() -> None:
    for shares in ([], [(1, 5)]):
        with pytest.raises(ValueError, match="at least 2"):
            shamir.combine(shares, 1)


def test_number_0_is_refused() -> None:
    # pyshamir's fault: the share numbered 0 IS the secret that comes out
    with pytest.raises(ValueError, match="number 0 would be the secret itself"):
        shamir.combine([(0, 0x41), (1, 0x42)], 1)


def test_numbers_above_255_are_refused() -> None:
    for number in (256, 257, -1):
        with pytest.raises(ValueError, match="share numbers are 1 to 255"):
            shamir.combine([(1, 0x41), (number, 0x42)], 1)


def test_a_number_twice_is_refused() -> None:
    for second in (0x41, 0x42):
        with pytest.raises(ValueError, match="twice"):
            shamir.combine([(3, 0x41), (3, second)], 1)


def test_a_refusal_is_not_forgotten_by_the_cache() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="twice"):
            shamir.combine([(1, 1), (2, 2), (1, 1)], 1)


def test_a_share_longer_than_the_secret_is_refused() -> None:
    shares = list(enumerate(shamir.split(SECRET, 32, 2, 3, kernel), 1))
    with pytest.raises(ValueError, match="does not fit in 31 bytes"):
        shamir.combine([(1, 1 << 250), shares[1]], 31)
    with pytest.raises(ValueError, match="does not fit in 32 bytes"):
        shamir.combine([(1, 1 << 256), shares[1]], 32)


def test_a_secret_longer_than_said_is_refused() -> None:
    for secret, length in ((SECRET, 31), (1, 0), (0, 0)):
        with pytest.raises(ValueError, match="does not fit"):
            shamir.split(secret, length, 2, 3, kernel)


def test_a_false_share_changes_the_secret_silently() -> None:
    # Shamir itself cannot tell: this is why commitments exist (§6)
    shares = list(enumerate(shamir.split(SECRET, 32, 3, 5, kernel), 1))
    number, value = shares[0]
    assert shamir.combine([(number, value ^ 1), *shares[1:3]], 32) != SECRET
    assert shamir.combine([(4, value), *shares[1:3]], 32) != SECRET


def test_shares_of_two_splits_give_neither_secret() -> None:
    one, other = (shamir.split(SECRET, 32, 2, 3, kernel) for _ in range(2))
    assert shamir.combine([(1, one[0]), (2, other[1])], 32) != SECRET
