# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of the audit log: RFC 6962 §2.1, verification as in RFC 9162 §2.1 (docs/custodian.md §9).

A tree is stored as its complete subtrees: node (level, position) is the hash over the 2^level leaves that begin at
leaf position * 2^level. Whoever stores them passes a `Reader`; nothing here does I/O. Hashes are SHA-256, 32 bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyquorum.errors import MalformedError, TamperingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Reader = Callable[[int, int], bytes]
    Node = tuple[int, int, bytes]

HASH = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_PROOF = 63  # hashes; C2SP tlog-witness has the same bound, and no log has 2^63 entries
_WHAT = "the proof from the log"


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry; the prefix keeps it from passing for a node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed(size: int, leaf: bytes, read: Reader) -> list[Node]:
    """Return the nodes that become complete when `leaf` joins a tree of `size` leaves, the leaf itself first."""
    level, position, digest = 0, size, leaf
    found = [(level, position, digest)]
    while position & 1:
        digest = node_hash(read(level, position - 1), digest)
        level, position = level + 1, position >> 1
        found.append((level, position, digest))
    return found


def _over(start: int, end: int, read: Reader) -> bytes:
    """Hash the leaves from `start` to before `end`; `start` is a multiple of the power of two that holds them."""
    width = end - start
    if width & (width - 1) == 0:
        return read(width.bit_length() - 1, start // width)
    middle = start + _split(width)
    return node_hash(_over(start, middle, read), _over(middle, end, read))


def _split(width: int) -> int:
    """Return the largest power of two smaller than `width` (k of RFC 6962 §2.1)."""
    return 1 << ((width - 1).bit_length() - 1)


def root(size: int, read: Reader) -> bytes:
    """Return the tree hash of the first `size` leaves."""
    return _over(0, size, read) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: Reader) -> list[bytes]:
    """Return PATH(index, D[size]) of RFC 6962 §2.1.1; raises `MalformedError` for a leaf that is not there."""
    if not 0 <= index < size:
        raise MalformedError("the question to the log", "index", f"{index} is not among the first {size} entries")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_over(middle, end, read))
            end = middle
        else:
            path.append(_over(start, middle, read))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, read: Reader) -> list[bytes]:
    """Return PROOF(old, D[new]) of RFC 6962 §2.1.2, empty if either tree needs none; raises `MalformedError`."""
    if not 0 <= old <= new:
        raise MalformedError("the question to the log", "size", f"{old} is not from 0 to {new}")
    if old in {0, new}:
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_over(middle, end, read))
            end = middle
        else:
            proof.append(_over(start, middle, read))
            start, whole = middle, False
    if not whole:
        proof.append(_over(start, end, read))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], expected_root: bytes) -> None:
    """Return if the leaf hash is number `index` of the tree (RFC 9162 §2.1.3.2); raises `TamperingError`."""
    if not 0 <= index < size:
        raise TamperingError(_WHAT, "index", f"{index} is not among the first {size} entries")
    _check_sizes([leaf, *proof])
    digest = leaf
    for other, left in _climb(index, size - 1, proof):
        digest = node_hash(other, digest) if left else node_hash(digest, other)
    if digest != expected_root:
        raise TamperingError(_WHAT, "root", f"entry {index} gives {digest.hex()}, the tree has {expected_root.hex()}")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> None:
    """Return if the old tree is the beginning of the new one (RFC 9162 §2.1.4.2); raises `TamperingError`."""
    if not 0 <= old <= new:
        raise TamperingError(_WHAT, "size", f"the log went back from {old} to {new} entries")
    if old in {0, new}:
        if proof:
            raise TamperingError(_WHAT, "hashes", "none is needed here")
        if old == 0 and old_root != EMPTY_ROOT:
            raise TamperingError(_WHAT, "root", "an empty log has another root")
        if old == new and old_root != new_root:
            raise TamperingError(_WHAT, "root", f"two roots for {old} entries: {old_root.hex()} and {new_root.hex()}")
        return
    _check_sizes(proof)
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise TamperingError(_WHAT, "hashes", "is empty")
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    was = now = path[0]
    for other, left in _climb(first, last, path[1:]):
        if left:
            was, now = node_hash(other, was), node_hash(other, now)
        else:
            now = node_hash(now, other)
    for size, expected, actual in ((old, old_root, was), (new, new_root, now)):
        if expected != actual:
            raise TamperingError(_WHAT, "root", f"for {size} entries it gives {actual.hex()}, not {expected.hex()}")


def _climb(first: int, last: int, proof: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Give each hash on the way from node `first` of a level up to the root, and whether it stands on the left.

    `last` is the number of the level's last node. Raises `TamperingError` when there is not one hash for each level.
    """
    for other in proof:
        if last == 0:
            raise TamperingError(_WHAT, "hashes", "has more hashes than the tree has levels")
        left = bool(first & 1) or first == last
        while left and first and not first & 1:
            first, last = first >> 1, last >> 1
        yield other, left
        first, last = first >> 1, last >> 1
    if last != 0:
        raise TamperingError(_WHAT, "hashes", "has fewer hashes than the tree has levels")


def _check_sizes(hashes: list[bytes]) -> None:
    if len(hashes) > MAX_PROOF + 1:
        raise TamperingError(_WHAT, "hashes", f"has {len(hashes)} hashes, more than {MAX_PROOF}")
    for digest in hashes:
        if len(digest) != HASH:
            raise TamperingError(_WHAT, "hashes", f"has a hash of {len(digest)} bytes, not {HASH}")


class Growing:
    """A tree of which only the right edge is kept: for a root over entries that are read once, in their order."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []  # the complete subtrees, largest first

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        position = self.size
        while position & 1:
            leaf = node_hash(self._edge.pop(), leaf)
            position >>= 1
        self._edge.append(leaf)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The tree hash of all leaves so far."""
        if not self._edge:
            return EMPTY_ROOT
        digest = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            digest = node_hash(left, digest)
        return digest
