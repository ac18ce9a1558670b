# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a polynomial over GF(2^8) at all points 0..2^m-1 at once (docs/sharing.md §4).

The additive FFT of Lin, Chung and Han ("Novel polynomial basis and its application to Reed-Solomon erasure
codes", FOCS 2014). Its basis polynomials X_0 = 1, X_1, … have deg X_i = i and X_i(0) = 0 for i > 0, so a polynomial
with f(0) = secret is the secret followed by any other coefficients: nothing has to be converted. n log n packed
multiplications instead of n·k make a split at 128 of 255 some ten times faster than evaluating point by point.

X_1 and X_2 are linear over GF(2): below threshold 4 a polynomial is known everywhere from its values at powers of 2.
"""

from __future__ import annotations

from keyquorum.sharing import field

# W_j(2^m) / W_j(2^j) for m = j + 1 … 7, where W_j is zero on 0..2^j-1. W_j is linear over GF(2), so the twiddle of any
# block is a sum of these. The tests compute them from the definition.
_TWIDDLES = tuple(
    bytes.fromhex(row)
    for row in ("02040810204080", "061c78eba1f2", "166752bc94", "0dc83fc3", "53d797", "b74a", "fa", "")
)

_X_2 = b"\x01" + _TWIDDLES[1]  # at 2, 4 … 128; at 1 it is 0, and X_1 is 1

Level = tuple[int, int, tuple[int, ...]]
_PLANS: dict[tuple[int, int, int], tuple[int, field.Masks, tuple[Level, ...]]] = {}
_MASKS: dict[int, tuple[int, field.Masks]] = {}


def _plan(threshold: int, points: int, lanes: int) -> tuple[int, field.Masks, tuple[Level, ...]]:
    """Return all that is public: the number of equal blocks to start with, the masks of the field, and the levels.

    A level is the size of its half blocks in bits, a mask of that size, and the twiddle of each block. Blocks that
    lie wholly behind the last point are left out.
    """
    depth = (threshold - 1).bit_length()  # higher levels only copy: their upper halves hold no coefficient
    levels: list[Level] = []
    for level in range(depth - 1, -1, -1):
        twiddles = [0]
        for twiddle in _TWIDDLES[level]:
            twiddles += [twiddle ^ other for other in twiddles]
        bits = (lanes << level) * 8
        levels.append((bits, (1 << bits) - 1, tuple(twiddles[: (points >> level + 1) + 1])))
    return (points >> depth) + 1, field.masks(lanes << max(0, depth - 1)), tuple(levels)


def evaluate(packed: int, threshold: int, points: int, lanes: int) -> list[int]:
    """Return f(1) … f(points), where f has the given coefficients in the X basis; f(0) is the first of them.

    `packed` holds `threshold` coefficients of `lanes` bytes each, the results are packed alike. At most 255 points.
    """
    if threshold < 4:
        return _evaluate_affine(packed, points, lanes)
    key = (threshold, points, lanes)
    plan = _PLANS.get(key)
    if plan is None:
        plan = _PLANS[key] = _plan(*key)
    copies, masks, levels = plan
    blocks = [packed] * copies
    for bits, mask, twiddles in levels:
        halves: list[int] = []
        for twiddle, block in zip(twiddles, blocks):  # noqa: B905 (blocks behind the last point drop out here)
            lower, upper = block & mask, block >> bits
            if twiddle:
                lower = field.multiply_add(lower, upper, twiddle, masks)
            halves += (lower, lower ^ upper)
        blocks = halves
    return blocks[1 : points + 1]


def _evaluate_affine(packed: int, points: int, lanes: int) -> list[int]:
    """The same for up to three coefficients, where f(x + y) = f(x) + f(y) + f(0)."""
    bits = 8 * lanes
    found = _MASKS.get(lanes)
    if found is None:
        found = _MASKS[lanes] = ((1 << bits) - 1, field.masks(lanes))
    mask, masks = found
    at_0, first, second = packed & mask, packed >> bits & mask, packed >> 2 * bits
    values = [at_0, at_0 ^ first]
    for at_power in _X_2[: points.bit_length() - 1]:
        first = field.double(first, masks)
        step = field.multiply_add(first, second, at_power, masks) if at_power > 1 else first ^ second
        values += [value ^ step for value in values]
    return values[1 : points + 1]
