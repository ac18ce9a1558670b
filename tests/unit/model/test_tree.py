# SPDX-License-Identifier: Apache-2.0
"""Threshold trees against brute force over all sets of fragments, and the reader of their signed form."""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.model import tree
from keyquorum.model.tree import MAX_DEPTH, Leaf, Node
from unit.sharing.test_tree import Shape, grow, shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def subsets(items: Iterable[int]) -> Iterator[frozenset[int]]:
    listed = list(items)
    return map(frozenset, chain.from_iterable(combinations(listed, size) for size in range(len(listed) + 1)))


def opens(node: Node | Leaf, present: frozenset[int]) -> bool:
    """The definition, word for word: a node needs `threshold` of its children."""
    if isinstance(node, Leaf):
        return node.index in present
    return sum(opens(child, present) for child in node.children) >= node.threshold


small = shapes().map(grow).filter(lambda node: sum(1 for _ in tree.leaves(node)) <= 9)


@settings(deadline=None, max_examples=60)
@given(small, st.data())
def test_missing_is_the_size_of_the_smallest_addition_that_opens(node: Node, data: st.DataObject) -> None:
    numbers = {index for index, _, _ in tree.leaves(node)}
    present = frozenset(data.draw(st.sets(st.sampled_from(sorted(numbers)))))
    smallest = min(len(added) for added in subsets(numbers - present) if opens(node, present | added))
    assert tree.missing(node, present) == smallest
    assert tree.satisfied(node, present) == opens(node, present)


@settings(deadline=None, max_examples=60)
@given(small, st.data())
def test_useful_are_exactly_those_that_some_completion_needs(node: Node, data: st.DataObject) -> None:
    numbers = {index for index, _, _ in tree.leaves(node)}
    present = frozenset(data.draw(st.sets(st.sampled_from(sorted(numbers)))))
    pivotal = {
        index
        for index in numbers - present
        if any(
            opens(node, present | added | {index}) and not opens(node, present | added)
            for added in subsets(numbers - present - {index})
        )
    }
    assert tree.useful(node, present) == pivotal


def test_foreign_numbers_count_nothing() -> None:
    node = grow((2, [None, None]))
    assert tree.missing(node, {7, 8, 9}) == 2
    assert tree.useful(node, {7, 8}) == {1, 2}


def test_leaves_have_paths_and_their_own_node() -> None:
    node = grow((2, [None, (1, [None, (2, [None, None])]), None]))
    found = [(index, path, at.threshold) for index, path, at in tree.leaves(node)]
    assert found == [(1, (1,), 2), (2, (2, 1), 1), (3, (2, 2, 1), 2), (4, (2, 2, 2), 2), (5, (3,), 2)]


@settings(deadline=None)
@given(shapes())
def test_round_trip(shape: Shape) -> None:
    node = grow(shape)
    assert tree.parse(tree.to_json(node), "set", TamperingError) == node


def nested(depth: int) -> Any:
    value: Any = {"threshold": 1, "children": [1]}
    for _ in range(depth - 1):
        value = {"threshold": 1, "children": [value]}
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "no table": (5, "policy: must be a table"),
    "no children": ({"threshold": 1, "children": []}, "policy.children: is empty"),
    "children missing": ({"threshold": 1}, "policy.children: is missing"),
    "threshold missing": ({"children": [1]}, "policy.threshold: is missing"),
    "threshold zero": ({"threshold": 0, "children": [1, 2]}, "policy.threshold: 0 is not from 1 to 2"),
    "threshold too high": ({"threshold": 3, "children": [1, 2]}, "policy.threshold: 3 is not from 1 to 2"),
    "threshold true": ({"threshold": True, "children": [1, 2]}, "policy.threshold: must be a whole number"),
    "unknown field": ({"threshold": 1, "children": [1], "x": 1}, "policy.x: is not known here"),
    "numbers from zero": (
        {"threshold": 1, "children": [0, 1]},
        "policy: its fragments are not numbered 1, 2, … in order",
    ),
    "gap": ({"threshold": 1, "children": [1, 3]}, "policy: its fragments are not numbered 1, 2, … in order"),
    "number twice": ({"threshold": 1, "children": [1, 1]}, "policy: its fragments are not numbered 1, 2, … in order"),
    "order": ({"threshold": 1, "children": [2, 1]}, "policy: its fragments are not numbered 1, 2, … in order"),
    "true for a number": ({"threshold": 1, "children": [True]}, "policy.children[0]: must be a table"),
    "text for a number": ({"threshold": 1, "children": ["1"]}, "policy.children[0]: must be a table"),
    "deep error": (
        {"threshold": 1, "children": [1, {"threshold": 2, "children": [2]}]},
        "policy.children[1].threshold: 2 is not from 1 to 1",
    ),
    "many children": (
        {"threshold": 1, "children": list(range(1, 257))},
        "policy.children: has 256 items, more than 255",
    ),
    "many leaves": (
        {
            "threshold": 1,
            "children": [
                {"threshold": 1, "children": list(range(1, 201))},
                {"threshold": 1, "children": list(range(201, 401))},
            ],
        },
        "policy: has 400 fragments, more than 255",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    value, words = REFUSED[name]
    with pytest.raises(MalformedError) as caught:
        tree.parse(value, "set", MalformedError)
    assert str(caught.value) == f"set: {words}"


def test_depth() -> None:
    assert tree.missing(tree.parse(nested(MAX_DEPTH), "set", TamperingError), set()) == 1
    with pytest.raises(TamperingError, match="is nested more than 4 deep"):
        tree.parse(nested(MAX_DEPTH + 1), "set", TamperingError)


def test_the_largest_policy() -> None:
    value = {"threshold": 128, "children": list(range(1, 256))}
    assert tree.missing(tree.parse(value, "set", TamperingError), set()) == 128
