# SPDX-License-Identifier: Apache-2.0
"""GF(2^8) with the polynomial 0x11b, on single public bytes and on secret bytes packed into one integer.

Two kinds of values, never mixed (docs/sharing.md §2):

- *Public* bytes: share numbers and what is computed from them. Logarithm tables may be used.
- *Lanes*: a secret of L bytes as one integer, byte i at bits 8i..8i+7. Lanes only ever meet XOR, AND with
  constants, shifts by constants and multiplication by the constant 27, so no table is indexed by a secret and no
  branch depends on one.
"""

from __future__ import annotations

ORDER = 255  # of the multiplicative group: the number of usable share numbers
_REDUCTION = 0x1B  # x^8 = x^4 + x^3 + x + 1


def _tables() -> tuple[list[int], list[int]]:
    exponential, logarithm = [0] * (2 * ORDER), [0] * 256
    value = 1
    for power in range(ORDER):
        exponential[power] = exponential[power + ORDER] = value
        logarithm[value] = power
        doubled = (value << 1) ^ (0x11B if value & 0x80 else 0)
        value ^= doubled  # multiply by the generator 3
    return exponential, logarithm


_EXP, _LOG = _tables()


def multiply(a: int, b: int) -> int:
    """Multiply two public bytes."""
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def divide(a: int, b: int) -> int:
    """Divide public byte `a` by public byte `b`, which must not be 0."""
    if b == 0:
        raise ZeroDivisionError("division by 0 in GF(2^8)")
    return _EXP[_LOG[a] - _LOG[b] + ORDER] if a else 0


def ones(lanes: int) -> int:
    """Return the integer with the value 1 in each of `lanes` lanes; times 0x7f it masks each lane's low seven bits."""
    return int.from_bytes(b"\x01" * lanes, "little")


def double(packed: int, one: int, low: int) -> int:
    """Multiply every lane by 2. `one` and `low` are `ones(lanes)` and `ones(lanes) * 0x7f`."""
    return ((packed & low) << 1) ^ ((packed >> 7) & one) * _REDUCTION


def multiply_add(accumulator: int, packed: int, factor: int, one: int, low: int) -> int:
    """Return `accumulator` + `factor` · `packed` lane by lane; only the public `factor` steers the loop."""
    while factor:
        if factor & 1:
            accumulator ^= packed
        factor >>= 1
        if factor:
            packed = double(packed, one, low)
    return accumulator
