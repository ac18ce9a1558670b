# SPDX-License-Identifier: Apache-2.0
"""Checking a whole log: which entry was removed, moved or changed, and where it contradicts what was signed (§9).

Three witnesses are asked: each entry's own number, the leaf hashes kept beside the entries, and signed checkpoints.
Whoever writes the store anew can make the first two fit, never the third (docs/custodian.md §9).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, entry, merkle
from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyquorum.custodian.checkpoint import Verified

MAX_FINDINGS = 100  # after one removal every later entry stands in the wrong place


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, in words, and at which entry it was first seen."""

    number: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """A log as it was found. `confirmed` is the size of the largest checkpoint that agrees with it."""

    size: int
    root: bytes
    confirmed: int
    findings: tuple[Finding, ...]

    def demand(self) -> None:
        """Return if nothing was found; raises `TamperingError` with the first finding."""
        if self.findings:
            first = self.findings[0]
            raise TamperingError("the log", f"entry {first.number}", first.problem)


class _Findings(list[Finding]):
    def add(self, number: int, problem: str) -> None:
        if len(self) < MAX_FINDINGS:
            self.append(Finding(number=number, problem=problem))


def examine(
    bodies: Iterable[bytes], checkpoints: Sequence[Verified] = (), leaves: Sequence[bytes] | None = None
) -> LogReport:
    """Read every entry once and compare; `leaves` are the leaf hashes that were kept beside the entries, if any."""
    findings, tree = _Findings(), merkle.Growing()
    ordered = sorted(checkpoints, key=lambda found: found.checkpoint.size)
    for one, other in pairwise(ordered):
        try:
            checkpoint.compare(one, other)
        except checkpoint.ForkError as fork:
            findings.add(one.checkpoint.size, fork.problem)
    waiting = list(ordered)
    confirmed = _compare(waiting, tree, 0, findings)
    for body in bodies:
        digest = merkle.leaf_hash(body)
        _examine_entry(tree.size, body, findings)
        if leaves is not None and (tree.size >= len(leaves) or leaves[tree.size] != digest):
            findings.add(tree.size, f"entry {tree.size} was changed: its hash is not the one that was kept")
        tree.append(digest)
        confirmed = _compare(waiting, tree, confirmed, findings)
    if leaves is not None and len(leaves) > tree.size:
        findings.add(tree.size, f"{len(leaves) - tree.size} entries at the end were removed: their hashes were kept")
    for late in waiting:
        size = late.checkpoint.size
        findings.add(tree.size, f"entries {tree.size} to {size - 1} were removed: a checkpoint has {size} entries")
    return LogReport(size=tree.size, root=tree.root, confirmed=confirmed, findings=tuple(findings))


def _examine_entry(position: int, body: bytes, findings: _Findings) -> None:
    try:
        found = entry.parse(body)
    except TamperingError as problem:
        findings.add(position, f"entry {position} was changed: {problem.message}")
        return
    if found.number != position:
        findings.add(position, f"entry {found.number} stands where entry {position} was: one was removed or moved")


def _compare(waiting: list[Verified], tree: merkle.Growing, confirmed: int, findings: _Findings) -> int:
    """Compare the tree with the checkpoints of its size; return the largest size that agreed so far."""
    while waiting and waiting[0].checkpoint.size == tree.size:
        signed = waiting.pop(0).checkpoint
        if signed.root == tree.root:
            confirmed = tree.size
        else:
            problem = (
                f"entries {confirmed} to {tree.size - 1} are not what the checkpoint for {tree.size} was signed for"
            )
            findings.add(confirmed, problem)
    return confirmed
