# SPDX-License-Identifier: Apache-2.0
"""A process that opens by the TPM and then looks for the identity in its own memory; run by a test.

Arguments: mode, device, where. The identity comes on standard input, and is kept masked while the search runs.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

from keyquorum.errors import TamperingError
from keyquorum.holders.contract import OpenTask, Subject, Tuning
from keyquorum.holders.tpm import HOLDER
from keyquorum.model import strict_json
from keyquorum.secret import Secret, wipe_all, wipe_bytes


def main() -> None:
    mode, device, where = sys.argv[1:4]
    needle = Secret(32)
    assert os.readv(0, [needle.view]) == 32
    planted = bytearray(needle.view) if mode == "planted" else bytearray()
    task = OpenTask(
        subject=Subject(volume="v", set_id=bytes(16), epoch=1, index=1, name="tpm"),
        where=strict_json.parse(where.encode(), "where", 8192, TamperingError),
        answers=None,  # type: ignore[arg-type]  # nobody is asked
        tuning=Tuning(tpm_device=device),
        deadline=time.monotonic() + 10,
    )
    if mode == "open":
        with HOLDER.open(task).identity as identity:
            assert identity.equals(needle)
    gc.collect()
    print(count(needle))
    planted[:] = bytes(len(planted))
    wipe_all()


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


main()
