# SPDX-License-Identifier: Apache-2.0
"""A process that issues, spends and releases until somebody kills it; it prints what is done, once it is done.

python -m unit.custodian.releasing STORE NAME
"""

from __future__ import annotations

import hashlib
import os
import sys

from keyquorum.custodian import store
from keyquorum.custodian.store_releases import Releases
from unit.custodian.notes import NOW
from unit.custodian.stores import WEB, asking, judge


def run(path: str, name: str) -> None:
    """Release for ever; each printed line is on the disk."""
    opened = store.open_store(path)
    opened.unsafe_without_witnesses()
    desk = Releases(opened)
    for number in range(1 << 30):
        nonce = hashlib.sha256(f"{name} {number}".encode()).digest()
        desk.issue(nonce, asking(WEB), NOW + number)
        desk.spend(nonce, asking(WEB), NOW + number)
        os.write(1, f"spent {nonce.hex()}\n".encode())
        released = desk.decide(asking(WEB), NOW + number, judge())
        os.write(1, f"released {released.entry.number}\n".encode())


if __name__ == "__main__":
    run(*sys.argv[1:])
