# SPDX-License-Identifier: Apache-2.0
"""Sharing along trees: every quorum opens, everything less does not (docs/sharing.md §7)."""

from __future__ import annotations

import os
from itertools import chain, combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.model.tree import MAX_DEPTH, Leaf, Node, leaves, satisfied
from keyquorum.sharing import shamir, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Shape = tuple[int, list["Shape | None"]]

SECRET = int.from_bytes(bytes(range(1, 33)), "little")
NESTED: Shape = (2, [None, None, (1, [None, None]), (2, [None, (2, [None, None, None]), None])])


def kernel(count: int) -> int:
    return int.from_bytes(os.urandom(count), "little")


def draws_from(columns: Iterator[bytes]) -> Callable[[int], int]:
    return lambda _count: int.from_bytes(next(columns), "little")


def grow(shape: Shape, numbers: Iterator[int] | None = None) -> Node:
    """Number the leaves of a shape in reading order."""
    numbers = numbers or iter(range(1, 256))
    threshold, children = shape
    return Node(
        threshold=threshold,
        children=tuple(Leaf(index=next(numbers)) if child is None else grow(child, numbers) for child in children),
    )


@st.composite
def shapes(draw: st.DrawFn, depth: int = MAX_DEPTH) -> Shape:
    children: list[Shape | None] = [
        draw(shapes(depth - 1)) if depth > 1 and draw(st.integers(0, 3)) == 0 else None
        for _ in range(draw(st.integers(1, 4)))
    ]
    return draw(st.integers(1, len(children))), children


def subsets(numbers: list[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(numbers, size) for size in range(len(numbers) + 1))


def test_every_subset_of_a_nested_tree() -> None:
    policy = grow(NESTED)
    shares = tree.split(policy, SECRET, 32, kernel)
    assert list(shares) == [index for index, _, _ in leaves(policy)] == list(range(1, 10))
    opened = 0
    for subset in subsets(list(shares)):
        present = {index: shares[index] for index in subset}
        if satisfied(policy, present.keys()):
            assert tree.combine(policy, present, 32) == SECRET
            opened += 1
        else:
            with pytest.raises(ValueError, match="do not reach the quorum"):
                tree.combine(policy, present, 32)
    assert 0 < opened < 512


@settings(deadline=None, max_examples=60)
@given(shape=shapes(), data=st.data())
def test_quorums_of_any_tree_open(shape: Shape, data: st.DataObject) -> None:
    policy = grow(shape)
    shares = tree.split(policy, SECRET, 32, kernel)
    present = data.draw(st.sets(st.sampled_from(sorted(shares))))
    chosen = {index: shares[index] for index in present}
    if satisfied(policy, present):
        assert tree.combine(policy, chosen, 32) == SECRET
    else:
        with pytest.raises(ValueError, match="do not reach the quorum"):
            tree.combine(policy, chosen, 32)


def test_a_node_with_threshold_1_hands_its_value_on() -> None:
    policy = grow((1, [None, (1, [None, None])]))
    assert tree.split(policy, SECRET, 32, kernel) == {1: SECRET, 2: SECRET, 3: SECRET}


def test_a_node_of_threshold_1_below_another_never_shows_the_secret() -> None:
    policy = grow((2, [None, (1, [None, None])]))
    shares = tree.split(policy, SECRET, 32, kernel)
    assert shares[2] == shares[3]
    assert SECRET not in shares.values()


def test_a_childs_place_is_its_share_number() -> None:
    policy = grow((2, [None, (2, [None, None]), None]))
    shares = tree.split(policy, SECRET, 32, kernel)
    group = shamir.combine([(1, shares[2]), (2, shares[3])], 32)
    assert shamir.combine([(2, group), (3, shares[4])], 32) == SECRET


def test_the_tree_alone_decides_how_many_are_combined() -> None:
    policy = grow((3, [None] * 5))
    shares = tree.split(policy, SECRET, 32, kernel)
    # one too few is refused, and additional ones, false though they are, are not mixed in
    with pytest.raises(ValueError, match="2 shares do not reach"):
        tree.combine(policy, {1: shares[1], 2: shares[2]}, 32)
    assert tree.combine(policy, shares | {4: 0, 5: 0}, 32) == SECRET


def test_shares_of_leaves_that_the_tree_lacks_do_not_count() -> None:
    policy = grow((2, [None, None]))
    shares = tree.split(policy, SECRET, 32, kernel)
    with pytest.raises(ValueError, match="do not reach"):
        tree.combine(policy, {1: shares[1], 3: shares[2], 0: 7}, 32)


def test_fewer_than_a_groups_threshold_are_uniform_whatever_the_secret() -> None:
    # both of [leaf, both of [leaf, leaf]]: all 65536 draws, one in each lane; any two leaves are uniform together
    policy = grow((2, [None, (2, [None, None])]))
    lanes = 65536
    for secret in (0, 0x2A):
        columns = iter([bytes(i & 0xFF for i in range(lanes)), bytes(i >> 8 for i in range(lanes))])
        packed = int.from_bytes(bytes([secret]) * lanes, "little")
        shares = tree.split(policy, packed, lanes, draws_from(columns))
        values = [share.to_bytes(lanes, "little") for share in shares.values()]
        for first, second in combinations(values, 2):
            assert len(set(zip(first, second, strict=True))) == lanes
