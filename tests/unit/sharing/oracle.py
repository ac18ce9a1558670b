# SPDX-License-Identifier: Apache-2.0
"""What the sharing tests compare with: slow arithmetic written without a look at the package, and a tracer."""

from __future__ import annotations

from functools import cache
from typing import NoReturn


def slow_multiply(a: int, b: int, polynomial: int) -> int:
    """Multiply in GF(2^8) by shifting and adding (the "Russian peasant")."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= polynomial
        b >>= 1
    return product


@cache
def slow_inverse(a: int, polynomial: int) -> int:
    """Invert by trying every byte."""
    return next(b for b in range(256) if slow_multiply(a, b, polynomial) == 1)


def slow_interpolate(shares: list[tuple[int, bytes]], at: int, polynomial: int = 0x11B) -> bytes:
    """Lagrange, byte by byte, as a text book has it."""
    result = bytearray(len(shares[0][1]))
    for number, value in shares:
        weight = 1
        for other, _ in shares:
            if other != number:
                inverse = slow_inverse(number ^ other, polynomial)
                weight = slow_multiply(weight, slow_multiply(at ^ other, inverse, polynomial), polynomial)
        for lane, byte in enumerate(value):
            result[lane] ^= slow_multiply(weight, byte, polynomial)
    return bytes(result)


def slow_basis(index: int, point: int) -> int:
    """X_index at a point (docs/sharing.md §4), from its definition."""
    product = 1
    for bit in range(8):
        if index >> bit & 1:
            product = slow_multiply(product, _subspace(bit, point), 0x11B)
            product = slow_multiply(product, slow_inverse(_subspace(bit, 1 << bit), 0x11B), 0x11B)
    return product


@cache
def _subspace(level: int, point: int) -> int:
    product = 1
    for zero in range(1 << level):
        product = slow_multiply(product, point ^ zero, 0x11B)
    return product


class Tainted:
    """A secret integer that fails when code branches on it, compares it, or uses it as an index or a shift count.

    It is no `int`, so a list subscript raises TypeError. It knows only what docs/sharing.md §2 allows for lanes.
    """

    def __init__(self, value: int) -> None:
        self._value = value

    def reveal(self) -> int:
        """Return the integer, for the test's own comparison."""
        return self._value

    def bit_length(self) -> int:
        """Allowed: the size check of §2, which only refuses."""
        return self._value.bit_length()

    def __xor__(self, other: int | Tainted) -> Tainted:
        return Tainted(self._value ^ _plain(other))

    __rxor__ = __xor__

    def __or__(self, other: int | Tainted) -> Tainted:
        return Tainted(self._value | _plain(other))

    __ror__ = __or__

    def __and__(self, other: int) -> Tainted:
        return Tainted(self._value & _public(other))

    __rand__ = __and__

    def __lshift__(self, other: int) -> Tainted:
        return Tainted(self._value << _public(other))

    def __rshift__(self, other: int) -> Tainted:
        return Tainted(self._value >> _public(other))

    def __mul__(self, other: int) -> Tainted:
        assert _public(other) == 27, "lanes are multiplied by the constant 27 only"
        return Tainted(self._value * other)

    __rmul__ = __mul__

    def __bool__(self) -> NoReturn:
        raise AssertionError("a branch depends on a secret")

    def __eq__(self, _other: object) -> NoReturn:
        raise AssertionError("a secret is compared")

    def __hash__(self) -> NoReturn:
        raise AssertionError("a secret is looked up")


def _plain(value: int | Tainted) -> int:
    return value.reveal() if isinstance(value, Tainted) else value


def _public(value: int | Tainted) -> int:
    assert not isinstance(value, Tainted), "a secret steers an operation"
    return value
