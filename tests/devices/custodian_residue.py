# SPDX-License-Identifier: Apache-2.0
"""A process that gets its fragment from a custodian and then looks for secrets in its own memory; run by a test.

Arguments: mode ("open" or "planted"), TPM, the machine's file, where. On standard input: the identity and the seed of
the TLS key, 32 bytes each, which are in protected memory while the search runs.
"""

from __future__ import annotations

import gc
import os
import sys
import time

from devices.memory_search import count
from keyquorum.errors import TamperingError
from keyquorum.holders.contract import OpenTask, Tuning
from keyquorum.holders.custodian import HOLDER
from keyquorum.model import strict_json
from keyquorum.secret import Secret, wipe_all


def main() -> None:
    mode, device, machine, where = sys.argv[1:5]
    needles = [Secret(32), Secret(32)]
    assert os.readv(0, [needle.view for needle in needles]) == 64
    planted = [bytearray(needle.view) for needle in needles if mode == "planted"]
    if mode == "open":
        from devices.holder_tasks import SUBJECT

        task = OpenTask(
            subject=SUBJECT,
            where=strict_json.parse(where.encode(), "where", 8192, TamperingError),
            answers=None,  # type: ignore[arg-type]  # nobody is asked
            tuning=Tuning(tpm_device=device, machine=machine),
            deadline=time.monotonic() + 30,
        )
        with HOLDER.open(task).identity as identity:
            assert identity.equals(needles[0])
    gc.collect()
    print(*(count(needle) for needle in needles))
    for copy in planted:
        copy[:] = bytes(len(copy))
    wipe_all()


main()
