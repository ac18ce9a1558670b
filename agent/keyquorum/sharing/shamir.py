# SPDX-License-Identifier: Apache-2.0
"""Shamir's scheme over GF(2^8), byte by byte on packed integers (docs/sharing.md §3).

Compatible share for share with HashiCorp Vault's, draft-mcgrew-tss and SLIP-39's field. Each rule here was a real
bug somewhere; docs/sharing.md §5 names it and the test that holds it.
"""

from __future__ import annotations

from keyquorum.sharing import field
from keyquorum.sharing.additive_fft import evaluate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_SHARES = field.ORDER

_WEIGHTS: dict[tuple[int, ...], tuple[int, ...]] = {}


def split(secret: int, length: int, threshold: int, total: int, random: Callable[[int], int]) -> list[int]:
    """Split a packed secret of `length` bytes; return the shares numbered 1 to `total`, packed alike.

    `random(n)` gives n uniformly random bytes as a packed integer. Every coefficient is uniform, the highest
    included: forbidding zero there would leak the secret over repeated splits.
    """
    if not 2 <= threshold <= total <= MAX_SHARES:
        raise ValueError(f"threshold {threshold} of {total}: must be 2 <= threshold <= total <= {MAX_SHARES}")
    if length < 1 or secret.bit_length() > 8 * length:
        raise ValueError(f"the secret does not fit in {length} bytes")
    drawn = random(length * (threshold - 1))
    mask = (1 << (8 * length)) - 1
    coefficients = [secret]
    for _ in range(threshold - 1):
        coefficients.append(drawn & mask)
        drawn >>= 8 * length
    return evaluate(coefficients, total, length)


def combine(shares: Sequence[tuple[int, int]], length: int, at: int = 0) -> int:
    """Return the packed value at number `at` of the polynomial through `shares`, each (number, packed value).

    The caller passes exactly as many shares as the *signed* threshold says: what the shares claim is not asked.
    """
    numbers = tuple(number for number, _ in shares)
    weights = _WEIGHTS.get((*numbers, at)) or _lagrange(numbers, at)
    planes = [0] * 8
    for weight, (_, value) in zip(weights, shares, strict=True):
        if value.bit_length() > 8 * length:
            raise ValueError(f"a share does not fit in {length} bytes")
        bit = 0
        while weight:
            if weight & 1:
                planes[bit] ^= value
            weight >>= 1  # noqa: PLW2901 (the weight is consumed bit by bit)
            bit += 1
    one = field.ones(length)
    low = one * 0x7F
    result = planes[7]
    for bit in range(6, -1, -1):
        result = field.double(result, one, low) ^ planes[bit]
    return result


def _lagrange(numbers: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return the Lagrange weights of the public share numbers for the point `at`."""
    if len(numbers) < 2:
        raise ValueError("a share alone decides nothing: at least 2 are combined")
    if len(set(numbers)) != len(numbers):
        raise ValueError("a share number occurs twice")
    if not all(1 <= number <= MAX_SHARES for number in numbers):
        raise ValueError(f"share numbers are 1 to {MAX_SHARES}: number 0 would be the secret itself")
    weights = []
    for own in numbers:
        numerator = denominator = 1
        for other in numbers:
            if other != own:
                numerator = field.multiply(numerator, at ^ other)
                denominator = field.multiply(denominator, own ^ other)
        weights.append(field.divide(numerator, denominator))
    found = _WEIGHTS[(*numbers, at)] = tuple(weights)
    return found
