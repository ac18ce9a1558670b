# SPDX-License-Identifier: Apache-2.0
"""A process that opens by the TPM and then looks for the identity in its own memory; run by a test.

Arguments: mode, device, where. The identity comes on standard input, and is kept masked while the search runs.
"""

from __future__ import annotations

import gc
import os
import sys
import time

from devices.memory_search import count
from keyquorum.errors import TamperingError
from keyquorum.holders.contract import OpenTask, Subject, Tuning
from keyquorum.holders.tpm import HOLDER
from keyquorum.model import strict_json
from keyquorum.secret import Secret, wipe_all


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


main()
