# SPDX-License-Identifier: Apache-2.0
"""Looking for a secret in the ordinary memory of this process; for programs that tests run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keyquorum.secret import wipe_bytes

if TYPE_CHECKING:
    from keyquorum.secret import Secret


def count(needle: Secret) -> int:
    """Return how often the needle occurs in this process' ordinary memory."""
    found = 0
    word = bytes(needle.view)
    own = id(word) + bytes.__basicsize__ - 1
    locked = range(needle.address - (1 << 16), needle.address + (1 << 16))
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    with open("/proc/self/mem", "rb", 0) as memory:
        for fields in maps:
            start, end = (int(part, 16) for part in fields[0].split("-"))
            if "r" not in fields[1] or fields[-1].startswith("[v") or start in locked:
                continue
            piece = bytearray(end - start)
            try:
                memory.seek(start)
                memory.readinto(piece)
            except OSError:
                continue
            at = piece.find(word)
            while at >= 0:
                found += start + at != own
                at = piece.find(word, at + 1)
            piece[:] = bytes(len(piece))
    wipe_bytes(word)
    return found
