# SPDX-License-Identifier: Apache-2.0
"""The mathematics of quorums, compared with trying every subset."""

from __future__ import annotations

from itertools import chain, combinations
from math import comb
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.model import quorum
from keyquorum.model.tree import Leaf, Node, satisfied

if TYPE_CHECKING:
    from collections.abc import Iterator


def flat(threshold: int, *numbers: int) -> Node:
    return Node(threshold=threshold, children=tuple(Leaf(index=number) for number in numbers))


def above(threshold: int, *children: Node | int) -> Node:
    return Node(
        threshold=threshold,
        children=tuple(Leaf(index=child) if isinstance(child, int) else child for child in children),
    )


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """A tree of at most 9 leaves and depth 3; in some, numbers stand at several leaves."""
    shape, count = draw(shapes(3, 9))
    numbers = iter(draw(st.lists(st.integers(1, 6), min_size=count, max_size=count) | st.permutations(range(1, 10))))
    return quorum.relabel(shape, {index: next(numbers) for index in range(1, count + 1)})


@st.composite
def shapes(draw: st.DrawFn, depth: int, most: int, first: int = 1) -> tuple[Node, int]:
    """A tree with different numbers from `first` on, and how many leaves it has."""
    children: list[Node | Leaf] = []
    used = 0
    for _ in range(draw(st.integers(1, 4))):
        if used < most and depth > 1 and draw(st.booleans()):
            node, size = draw(shapes(depth - 1, most - used, first + used))
            children.append(node)
            used += size
        elif used < most:
            children.append(Leaf(index=first + used))
            used += 1
    return Node(threshold=draw(st.integers(1, len(children))), children=tuple(children)), used


def subsets(tree: Node) -> Iterator[frozenset[int]]:
    every = quorum.numbers(tree)
    return (frozenset(one) for one in chain.from_iterable(combinations(every, size) for size in range(len(every) + 1)))


def minimal_by_trying(tree: Node) -> set[frozenset[int]]:
    reaching = {one for one in subsets(tree) if satisfied(tree, one)}
    return {one for one in reaching if not any(one - {number} in reaching for number in one)}


@settings(deadline=None)
@given(tree=trees())
def test_ways_are_the_minimal_quorums(tree: Node) -> None:
    expected = minimal_by_trying(tree)
    ways = quorum.ways(tree, 10_000)
    assert {frozenset(way) for way in ways.shown} == expected
    assert ways.total == len(ways.shown) == len(expected)


@settings(deadline=None)
@given(tree=trees(), free=st.frozensets(st.integers(1, 9)))
def test_smallest_is_a_smallest(tree: Node, free: frozenset[int]) -> None:
    expected = min(len(one - free) for one in subsets(tree) if satisfied(tree, one | free))
    found = quorum.smallest(tree, free)
    assert not found & free
    assert satisfied(tree, found | free)
    assert len(found) == expected


@settings(deadline=None)
@given(tree=trees())
def test_a_loss_is_fatal_when_the_rest_does_not_reach(tree: Node) -> None:
    everything = frozenset(quorum.numbers(tree))
    for lost in subsets(tree):
        assert satisfied(quorum.dual(tree), lost) is not satisfied(tree, everything - lost)
    assert quorum.dual(quorum.dual(tree)) == tree


@settings(deadline=None)
@given(tree=trees())
def test_indispensable_idle_and_alone(tree: Node) -> None:
    ways = minimal_by_trying(tree)
    numbers = set(quorum.numbers(tree))
    assert set(quorum.indispensable(tree)) == {n for n in numbers if all(n in way for way in ways)}
    assert set(quorum.idle(tree)) == {n for n in numbers if not any(n in way for way in ways)}
    assert set(quorum.alone(tree)) == {n for n in numbers if frozenset((n,)) in ways}


@settings(deadline=None)
@given(tree=trees(), gone=st.frozensets(st.integers(1, 9)))
def test_a_tree_without_some_reaches_what_the_others_reach(tree: Node, gone: frozenset[int]) -> None:
    rest = quorum.without(tree, gone)
    for one in subsets(tree):
        assert satisfied(tree, one - gone) is (rest is not None and satisfied(rest, one - gone))


def test_count_does_not_enumerate() -> None:
    tree = flat(128, *range(1, 256))
    ways = quorum.ways(tree, 2)
    assert ways.total == comb(255, 128)
    assert ways.shown == (tuple(range(1, 129)), (*range(1, 128), 129))
    assert len(quorum.smallest(quorum.dual(tree))) == 128


def test_count_of_wide_groups_does_not_enumerate() -> None:
    groups = [flat(40, *range(start, start + 80)) for start in (1, 81, 161)]
    tree = above(2, *groups)
    assert quorum.ways(tree, 3).total == 3 * comb(80, 40) ** 2
    assert len(quorum.smallest(tree)) == 80
    assert len(quorum.smallest(quorum.dual(tree))) == 82


def test_the_smallest_loss_of_a_nested_tree() -> None:
    # 2 of {1, 2, 1 of {3, 4, 5}}: losing 1 and 2 ends it, losing the people alone does not
    tree = above(2, 1, 2, flat(1, 3, 4, 5))
    assert quorum.smallest(quorum.dual(tree)) == {1, 2}
    assert quorum.ways(quorum.dual(tree), 9).shown == ((1, 2), (1, 3, 4, 5), (2, 3, 4, 5))


def test_a_holder_of_two_fragments_weighs_two() -> None:
    tree = flat(3, 1, 1, 2, 3)
    assert quorum.ways(tree, 9).shown == ((1, 2), (1, 3))
    assert quorum.indispensable(tree) == (1,)
    assert quorum.smallest(quorum.dual(tree)) == {1}
    assert quorum.idle(flat(2, 1, 1, 2)) == (2,)


def test_many_equal_holders_of_several_fragments_are_few_cases() -> None:
    tree = flat(128, *[number for number in range(1, 128) for _ in range(2)])
    assert quorum.cases(tree) == 128
    assert len(quorum.smallest(tree)) == 64
    assert len(quorum.smallest(quorum.dual(tree))) == 64


def test_too_many_quorums_to_list_are_not_counted_wrongly() -> None:
    tree = flat(20, *[number for number in range(1, 31) for _ in range(2)])
    ways = quorum.ways(tree, 5)
    assert ways.total == -1
    for way in ways.shown:
        assert satisfied(tree, set(way))
        assert not any(satisfied(tree, set(way) - {number}) for number in way)
    assert quorum.idle(tree) == ()


def test_entangled_trees_are_many_cases() -> None:
    pairs = [flat(1, a, b) for a in range(1, 14) for b in (a % 13 + 1,)]
    assert quorum.cases(above(13, *pairs)) == 2**13 > quorum.MAX_CASES


def test_without_what_is_needed_nothing_is_left() -> None:
    assert quorum.without(flat(2, 1, 2, 3), {1, 2}) is None
    assert quorum.without(above(1, flat(2, 1, 2), 3), {2}) == flat(1, 3)


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_all_free_needs_nobody(threshold: int) -> None:
    assert quorum.smallest(flat(threshold, 1, 2, 3), {1, 2, 3}) == frozenset()
