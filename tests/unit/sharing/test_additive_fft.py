# SPDX-License-Identifier: Apache-2.0
"""The additive FFT against its definition, and the two facts about its basis that secrecy rests on (§4)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.sharing import additive_fft, field
from unit.sharing.oracle import slow_basis, slow_multiply

BASIS = [[slow_basis(index, point) for point in range(256)] for index in range(255)]


def rank(rows: list[list[int]]) -> int:
    """Return the rank of a matrix over GF(2^8) by elimination."""
    rows, found = [list(row) for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((row for row in range(found, len(rows)) if rows[row][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        top = rows[found]
        for row in range(found + 1, len(rows)):
            factor = field.divide(rows[row][column], top[column])
            if factor:
                rows[row] = [a ^ field.multiply(factor, b) for a, b in zip(rows[row], top, strict=True)]
        found += 1
    return found


@settings(deadline=None)
@given(
    coefficients=st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=40),
    points=st.integers(1, 255),
)
def test_values_are_those_of_the_definition(coefficients: list[bytes], points: int) -> None:
    points = max(points, len(coefficients))
    packed = int.from_bytes(b"".join(coefficients), "little")
    values = additive_fft.evaluate(packed, len(coefficients), points, 3)
    assert len(values) == points
    for point in {1, min(2, points), (points + 1) // 2, points}:
        expected = bytearray(3)
        for index, coefficient in enumerate(coefficients):
            for lane, byte in enumerate(coefficient):
                expected[lane] ^= slow_multiply(byte, BASIS[index][point], 0x11B)
        assert values[point - 1].to_bytes(3, "little") == bytes(expected)


@pytest.mark.parametrize("points", [1, 2, 3, 4, 7, 8, 127, 128, 254, 255])
def test_every_number_of_points(points: int) -> None:
    for threshold in {1, 2, 3, 4, 5, points // 2, points - 1, points} - {0, -1}:
        if threshold <= points:
            coefficients = list(range(1, threshold + 1))
            values = additive_fft.evaluate(int.from_bytes(bytes(coefficients), "little"), threshold, points, 1)
            for point, value in enumerate(values, 1):
                expected = 0
                for index, coefficient in enumerate(coefficients):
                    expected ^= field.multiply(coefficient, BASIS[index][point])
                assert value == expected


def test_twiddles_are_those_of_the_definition() -> None:
    for level, row in enumerate(additive_fft._TWIDDLES):
        assert list(row) == [BASIS[1 << level][1 << bit] for bit in range(level + 1, 8)]


def test_the_first_coefficient_is_the_value_at_0() -> None:
    assert [BASIS[index][0] for index in range(255)] == [1] + [0] * 254


def test_basis_polynomial_i_has_degree_i() -> None:
    # It depends on 1, x, … x^i and not on the first i of these alone. 40 points tell all polynomials below degree 40.
    powers = [[1] * 40]
    for _ in range(33):
        powers.append([field.multiply(value, point) for point, value in enumerate(powers[-1])])
    for index in (1, 2, 3, 7, 8, 20, 33):
        values = BASIS[index][:40]
        assert rank([*powers[:index], values]) == index + 1
        assert rank([*powers[: index + 1], values]) == index + 1


@settings(deadline=None, max_examples=40)
@given(numbers=st.lists(st.integers(1, 255), unique=True, min_size=1, max_size=40))
def test_fewer_shares_than_threshold_are_masked_by_an_invertible_matrix(numbers: list[int]) -> None:
    # k-1 shares are the secret in every row plus M · random; M invertible makes them uniform whatever the secret is
    assert rank([[BASIS[index][number] for index in range(1, len(numbers) + 1)] for number in numbers]) == len(numbers)


def test_the_matrix_is_invertible_for_127_of_255() -> None:
    for numbers in (range(1, 128), range(129, 256), range(1, 255, 2)):
        assert rank([[BASIS[index][number] for index in range(1, 128)] for number in numbers]) == 127
