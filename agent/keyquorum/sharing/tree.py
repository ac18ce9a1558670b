# SPDX-License-Identifier: Apache-2.0
"""Sharing along a threshold tree: a node's share is the secret of the node below it (docs/sharing.md §7)."""

from __future__ import annotations

from keyquorum.model.tree import Leaf, Node, missing
from keyquorum.sharing import shamir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def split(tree: Node, secret: int, length: int, random: Callable[[int], int]) -> dict[int, int]:
    """Split a packed secret of `length` bytes; return each leaf's packed share by its index."""
    if tree.threshold == 1:
        values = [secret] * len(tree.children)  # any child alone is enough: each holds the secret itself
    else:
        values = shamir.split(secret, length, tree.threshold, len(tree.children), random)
    shares: dict[int, int] = {}
    for child, value in zip(tree.children, values, strict=True):
        if isinstance(child, Leaf):
            shares[child.index] = value
        else:
            shares |= split(child, value, length, random)
    return shares


def combine(tree: Node, shares: Mapping[int, int], length: int) -> int:
    """Rebuild the packed secret from leaves that satisfy the tree; `ValueError` when they do not."""
    if missing(tree, shares.keys()):
        raise ValueError(f"{len(shares)} shares do not reach the quorum")
    known: list[tuple[int, int]] = []
    for number, child in enumerate(tree.children, 1):
        if isinstance(child, Leaf):
            if child.index in shares:
                known.append((number, shares[child.index]))
        elif not missing(child, shares.keys()):
            known.append((number, combine(child, shares, length)))
        if len(known) == tree.threshold:
            break
    if tree.threshold == 1:
        return known[0][1]
    return shamir.combine(known, length)
