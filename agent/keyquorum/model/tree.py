# SPDX-License-Identifier: Apache-2.0
"""The threshold tree of a policy, as a boot needs it: thresholds over numbered leaves (docs/policy.md §2)."""

from __future__ import annotations

from keyquorum.model.fields import Fields
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from typing import Any

    from keyquorum.model.strict_json import ErrorType

MAX_DEPTH = 4
MAX_LEAVES = 255


class Leaf(Record):
    """One fragment, numbered from 1 in reading order."""

    index: int


class Node(Record):
    """`threshold` of the children must be known; child number i has share number i, counted from 1."""

    threshold: int
    children: tuple[Node | Leaf, ...]


def leaves(tree: Node) -> Iterator[tuple[int, tuple[int, ...], Node]]:
    """Give every leaf's index, its path of share numbers from the root, and the node that holds it."""
    for number, child in enumerate(tree.children, 1):
        if isinstance(child, Leaf):
            yield child.index, (number,), tree
        else:
            for index, path, node in leaves(child):
                yield index, (number, *path), node


def satisfied(tree: Node, present: AbstractSet[int]) -> bool:
    """Say whether the leaves in `present` reach the quorum."""
    return missing(tree, present) == 0


def missing(tree: Node, present: AbstractSet[int]) -> int:
    """Return how many more leaves, chosen best, would reach the quorum; 0 when it is reached."""
    costs = sorted(
        (0 if child.index in present else 1) if isinstance(child, Leaf) else missing(child, present)
        for child in tree.children
    )
    return sum(costs[: tree.threshold])


def useful(tree: Node, present: AbstractSet[int]) -> set[int]:
    """Return the leaves that can still help: those under a node that has not reached its own threshold yet."""
    if satisfied(tree, present):
        return set()
    found: set[int] = set()
    for child in tree.children:
        if isinstance(child, Leaf):
            found |= {child.index} - present
        else:
            found |= useful(child, present)
    return found


def to_json(tree: Node) -> dict[str, Any]:
    """Return the form that is signed: a number is a leaf, a table a node."""
    return {
        "threshold": tree.threshold,
        "children": [child.index if isinstance(child, Leaf) else to_json(child) for child in tree.children],
    }


def parse(value: object, what: str, error: ErrorType) -> Node:
    """Read a tree; leaves must be numbered 1, 2, … in reading order."""
    tree = _parse(Fields(value, what, error, "policy"), what, error, 1)
    numbers = [index for index, _, _ in leaves(tree)]
    if numbers != list(range(1, len(numbers) + 1)):
        raise error(what, "policy", "its fragments are not numbered 1, 2, … in order")
    if len(numbers) > MAX_LEAVES:
        raise error(what, "policy", f"has {len(numbers)} fragments, more than {MAX_LEAVES}")
    return tree


def _parse(fields: Fields, what: str, error: ErrorType, depth: int) -> Node:
    if depth > MAX_DEPTH:
        fields.fail("", f"is nested more than {MAX_DEPTH} deep")
    items = fields.rows("children")
    threshold = fields.integer("threshold", 1, max(1, len(items)))
    children: list[Node | Leaf] = []
    for index, item in enumerate(items):
        if isinstance(item, int) and not isinstance(item, bool):
            children.append(Leaf(index=item))
        else:
            children.append(_parse(fields.row("children", index, item), what, error, depth + 1))
    if not children:
        fields.fail("children", "is empty")
    fields.finish()
    return Node(threshold=threshold, children=tuple(children))
