# SPDX-License-Identifier: Apache-2.0
"""Searching a dump of a guest's RAM for what must not be there (and for what must, to prove the search)."""

import mmap
from collections.abc import Mapping


def occurrences(dump: str, secrets: Mapping[str, bytes]) -> dict[str, int]:
    """How often each secret is in the dump, overlapping finds included."""
    with open(dump, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        return {name: _count(memory, secret) for name, secret in secrets.items()}


def _count(memory: mmap.mmap, secret: bytes) -> int:
    if not secret:
        raise ValueError("an empty secret is everywhere")
    count, at = 0, memory.find(secret)
    while at >= 0:
        count, at = count + 1, memory.find(secret, at + 1)
    return count
