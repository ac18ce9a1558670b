# SPDX-License-Identifier: Apache-2.0
"""Waiting until a deadline without sleeping through a signal.

Python runs a signal's handler between two of its own steps. A signal that comes after the last of them and before the
system call that sleeps is heard only when that returns; so nothing here sleeps for more than a second at once.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

NAP = 1.0


def ready(poll: select.poll, deadline: float) -> dict[int, int]:
    """Return which descriptors are ready, with poll(2)'s events; none once the monotonic deadline has passed."""
    while (left := deadline - time.monotonic()) > 0:
        if found := dict(poll.poll(min(left, NAP) * 1000)):
            return found
    return {}
