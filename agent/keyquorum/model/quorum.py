# SPDX-License-Identifier: Apache-2.0
"""The mathematics of quorums: which sets open, which losses are survived (docs/policy.md §6).

The trees are those of `model.tree`, but a leaf's index is the number of whatever is counted: a fragment, a holder or
a place. One number may stand at several leaves. All results are exact; where a list would not end, it is cut and
says so.
"""

from __future__ import annotations

from itertools import combinations, islice, product

from keyquorum.model.tree import Leaf, Node, leaves, satisfied
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

MAX_CASES = 4096  # what `smallest` looks at for numbers that stand at several leaves
_MAX_TRIED = 20_000
_MAX_WORK = 8_000_000  # leaves looked at while listing: about a second


class Ways(Record):
    """Minimal sets that reach a quorum: the first few, and how many there are (-1: too many to count)."""

    shown: tuple[tuple[int, ...], ...]
    total: int


def relabel(tree: Node, numbers: Mapping[int, int]) -> Node:
    """Return the tree with every leaf's index replaced."""
    return tree.with_(
        children=tuple(
            Leaf(index=numbers[child.index]) if isinstance(child, Leaf) else relabel(child, numbers)
            for child in tree.children
        )
    )


def dual(tree: Node) -> Node:
    """Return the tree whose quorums are the losses that make `tree` fail."""
    return Node(
        threshold=len(tree.children) - tree.threshold + 1,
        children=tuple(child if isinstance(child, Leaf) else dual(child) for child in tree.children),
    )


def without(tree: Node, gone: AbstractSet[int]) -> Node | None:
    """Return the tree without some leaves; None when it cannot be reached any more."""
    children: list[Node | Leaf] = []
    for child in tree.children:
        rest = (None if child.index in gone else child) if isinstance(child, Leaf) else without(child, gone)
        if rest is not None:
            children.append(rest)
    return tree.with_(children=tuple(children)) if len(children) >= tree.threshold else None


def numbers(tree: Node) -> tuple[int, ...]:
    """Return the numbers in reading order, each once."""
    return tuple(dict.fromkeys(index for index, _, _ in leaves(tree)))


def alone(tree: Node) -> tuple[int, ...]:
    """Return the numbers that reach the quorum each on its own."""
    return tuple(number for number in numbers(tree) if satisfied(tree, {number}))


def indispensable(tree: Node) -> tuple[int, ...]:
    """Return the numbers without which the quorum is never reached."""
    everything = frozenset(numbers(tree))
    return tuple(number for number in numbers(tree) if not satisfied(tree, everything - {number}))


def idle(tree: Node) -> tuple[int, ...]:
    """Return the numbers that no minimal quorum needs; () also when there are too many quorums to know."""
    if not _repeated(tree):
        return ()
    found, complete = _distinct(tree)
    return tuple(number for number in numbers(tree) if not any(number in one for one in found)) if complete else ()


def count(tree: Node) -> int:
    """Return how many minimal quorums a tree has whose numbers stand at one leaf each."""
    chosen = [1] + [0] * tree.threshold  # chosen[j]: ways to satisfy j of the children seen so far
    for child in tree.children:
        ways_of_child = 1 if isinstance(child, Leaf) else count(child)
        for size in range(tree.threshold, 0, -1):
            chosen[size] += chosen[size - 1] * ways_of_child
    return chosen[tree.threshold]


def ways(tree: Node, most: int) -> Ways:
    """Return up to `most` minimal quorums in reading order, and their number."""
    if not _repeated(tree):
        return Ways(shown=_ordered(tree, list(islice(_choices(tree), most))), total=count(tree))
    found, complete = _distinct(tree)
    return Ways(shown=_ordered(tree, found[:most]), total=len(found) if complete else -1)


def cases(tree: Node) -> int:
    """Return how many cases `smallest` has to look at: 1 unless numbers stand at several leaves."""
    result = 1
    for group in _interchangeable(tree, frozenset()):
        result *= len(group) + 1
    return result


def smallest(tree: Node, free: AbstractSet[int] = frozenset()) -> frozenset[int]:
    """Return a smallest set that reaches the quorum together with `free`.

    Exact: a number at one leaf is chosen greedily, which is right in a tree; for those at several leaves every choice
    is tried, except that of two which stand at the same nodes it does not matter which is taken.
    """
    groups = _interchangeable(tree, free)
    best, least = frozenset[int](), len(numbers(tree)) + 1
    for sizes in product(*(range(len(group) + 1) for group in groups)):
        if sum(sizes) >= least:
            continue
        taken = frozenset(number for group, size in zip(groups, sizes, strict=True) for number in group[:size])
        cost, chosen = _cheapest(tree, free | taken)
        if len(taken) + cost < least:
            best, least = taken | chosen, len(taken) + cost
    return best


def _cheapest(tree: Node, given: AbstractSet[int]) -> tuple[int, frozenset[int]]:
    """Return price and numbers of the cheapest quorum, where `given` is free and every other leaf costs 1.

    A number at several leaves is paid several times; the case in which it is `given` has the right price.
    """
    options: list[tuple[int, frozenset[int]]] = []
    for child in tree.children:
        if isinstance(child, Node):
            options.append(_cheapest(child, given))
        elif child.index in given:
            options.append((0, frozenset()))
        else:
            options.append((1, frozenset((child.index,))))
    options.sort(key=lambda option: option[0])
    best = options[: tree.threshold]
    return sum(cost for cost, _ in best), frozenset[int]().union(*(chosen for _, chosen in best))


def _repeated(tree: Node) -> frozenset[int]:
    seen = [index for index, _, _ in leaves(tree)]
    return frozenset(index for index in seen if seen.count(index) > 1) if len(set(seen)) < len(seen) else frozenset()


def _interchangeable(tree: Node, free: AbstractSet[int]) -> list[list[int]]:
    """Group the numbers that stand at several leaves by the nodes at which they stand, and how often."""
    repeated = _repeated(tree) - free
    stands: dict[int, list[tuple[int, ...]]] = {number: [] for number in numbers(tree) if number in repeated}
    for index, path, _ in leaves(tree):
        if index in stands:
            stands[index].append(path[:-1])
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for number, nodes in stands.items():
        groups.setdefault(tuple(sorted(nodes)), []).append(number)
    return list(groups.values())


def _choices(tree: Node) -> Iterator[frozenset[int]]:
    """Give every minimal choice of leaves as its set of numbers, lazily."""
    for chosen in combinations(tree.children, tree.threshold):
        fixed = frozenset(child.index for child in chosen if isinstance(child, Leaf))
        yield from _joined([child for child in chosen if isinstance(child, Node)], fixed)


def _joined(nodes: Sequence[Node], so_far: frozenset[int]) -> Iterator[frozenset[int]]:
    if not nodes:
        yield so_far
        return
    for part in _choices(nodes[0]):
        yield from _joined(nodes[1:], so_far | part)


def _distinct(tree: Node) -> tuple[list[frozenset[int]], bool]:
    """Return the minimal sets of numbers, and whether these are all."""
    size = sum(1 for _ in leaves(tree))
    most = min(_MAX_TRIED, _MAX_WORK // size**2)
    found: dict[frozenset[int], bool] = {}
    tried = 0
    for tried, chosen in enumerate(islice(_choices(tree), most + 1), 1):
        if chosen not in found and tried <= most:
            found[chosen] = not any(satisfied(tree, chosen - {number}) for number in chosen)
    return [chosen for chosen, minimal in found.items() if minimal], tried <= most


def _ordered(tree: Node, sets: Sequence[frozenset[int]]) -> tuple[tuple[int, ...], ...]:
    order = numbers(tree)
    return tuple(tuple(number for number in order if number in one) for one in sets)
