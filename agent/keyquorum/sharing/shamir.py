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

Plan = tuple[int, field.Masks, tuple[int, ...]]
_PLANS: dict[tuple[int, ...], Plan] = {}


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
    return evaluate(secret | drawn << 8 * length, threshold, total, length)


def combine(shares: Sequence[tuple[int, int]], length: int, at: int = 0) -> int:
    """Return the packed value at number `at` of the polynomial through `shares`, each (number, packed value).

    The caller passes exactly as many shares as the *signed* threshold says: what the shares claim is not asked.
    """
    key = (at, length, *[number for number, _ in shares])
    bits, masks, weights = _PLANS.get(key) or _plan(key)
    zero = one = two = three = 0  # what has bit b of its weight, beside what has bit b + 4
    for weight, (_, value) in zip(weights, shares, strict=True):
        if value.bit_length() > bits:
            raise ValueError(f"a share does not fit in {length} bytes")
        beside = value << bits
        if weight & 0x01:
            zero ^= value
        if weight & 0x02:
            one ^= value
        if weight & 0x04:
            two ^= value
        if weight & 0x08:
            three ^= value
        if weight & 0x10:
            zero ^= beside
        if weight & 0x20:
            one ^= beside
        if weight & 0x40:
            two ^= beside
        if weight & 0x80:
            three ^= beside
    folded = three
    for plane in (two, one, zero):
        folded = field.double(folded, masks) ^ plane
    return folded & ((1 << bits) - 1) ^ field.sixteenfold(folded >> bits, masks)


def _plan(key: tuple[int, ...]) -> Plan:
    """Return all that is public about one quorum: a share's bits, the masks of the field, and the weights."""
    at, length, *numbers = key
    found = _PLANS[key] = (8 * length, field.masks(2 * length), _lagrange(tuple(numbers), at))
    return found


def _lagrange(numbers: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return the Lagrange weights of the public share numbers for the point `at`: Π (at + x_j) / (x_i + x_j), j ≠ i.

    Products of public bytes are sums of their logarithms.
    """
    if len(numbers) < 2:
        raise ValueError("a share alone decides nothing: at least 2 are combined")
    if len(set(numbers)) != len(numbers):
        raise ValueError("a share number occurs twice")
    if min(numbers) < 1 or max(numbers) > MAX_SHARES:
        raise ValueError(f"share numbers are 1 to {MAX_SHARES}: number 0 would be the secret itself")
    if at in numbers:
        return tuple([int(number == at) for number in numbers])
    packed, one = int.from_bytes(bytes(numbers), "little"), field.ones(len(numbers))

    def logarithms(point: int) -> int:
        return sum((packed ^ point * one).to_bytes(len(numbers), "little").translate(field.LOGARITHMS))

    above = logarithms(at)
    weights = [field.exponential(above - field.LOGARITHMS[at ^ own] - logarithms(own)) for own in numbers]
    return tuple(weights)
