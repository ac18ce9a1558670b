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
LOGARITHMS = bytes(_LOG)  # as a table for bytes.translate; the entry of 0, which has no logarithm, is 0


def exponential(logarithm: int) -> int:
    """Return the public byte with this logarithm; any integer will do."""
    return _EXP[logarithm % ORDER]


def multiply(a: int, b: int) -> int:
    """Multiply two public bytes."""
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def divide(a: int, b: int) -> int:
    """Divide public byte `a` by public byte `b`, which must not be 0."""
    if b == 0:
        raise ZeroDivisionError("division by 0 in GF(2^8)")
    return _EXP[_LOG[a] - _LOG[b] + ORDER] if a else 0


def ones(lanes: int) -> int:
    """Return the integer with the value 1 in each of `lanes` lanes."""
    return int.from_bytes(b"\x01" * lanes, "little")


Masks = tuple[int, int, int]


def masks(lanes: int) -> Masks:
    """Return what the functions below need to know: each lane's lowest bit, its low seven bits, its low four bits.

    Masks for more lanes than a value has will do.
    """
    one = ones(lanes)
    return one, one * 0x7F, one * 0x0F


def double(packed: int, of: Masks) -> int:
    """Multiply every lane by 2."""
    one, low, _ = of
    return ((packed & low) << 1) ^ ((packed >> 7) & one) * _REDUCTION


def sixteenfold(packed: int, of: Masks) -> int:
    """Multiply every lane by 16.

    x^8 = x^4 + x^3 + x + 1 = (x + 1)(x^3 + 1), so four bits that leave a lane come back by two shifts, at most at x^7.
    """
    nibble = of[2]
    carried = (packed >> 4) & nibble
    carried ^= carried << 1
    return ((packed & nibble) << 4) ^ carried ^ (carried << 3)


def multiply_add(accumulator: int, packed: int, factor: int, of: Masks) -> int:
    """Return `accumulator` + `factor` · `packed` lane by lane; only the public `factor` steers the loop.

    The two halves of `factor` share three doublings; what the upper half selected is then multiplied by 16 at once.
    """
    one, low, _ = of
    if factor & 1:
        accumulator ^= packed
    upper = packed if factor & 16 else 0
    halves = 0x77 if factor > 15 else 0x07  # what is left of each half of `factor` after a step
    while factor := factor >> 1 & halves:
        packed = ((packed & low) << 1) ^ ((packed >> 7) & one) * _REDUCTION
        if factor & 1:
            accumulator ^= packed
        if factor & 16:
            upper ^= packed
    return accumulator ^ sixteenfold(upper, of) if halves == 0x77 else accumulator
