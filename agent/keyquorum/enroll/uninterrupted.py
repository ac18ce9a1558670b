# SPDX-License-Identifier: Apache-2.0
"""What must not be left half done: signals wait until it is over (I6).

Python raises a signal's exception when a library's call has returned. A call that has changed the header would be
taken for one that was never made, and its fragments for waste.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals that would end the program back until the block is done; the first one counts then."""
    came: list[int] = []
    before = [(number, signal.getsignal(number)) for number in _ENDING]
    ours = [number for number, handler in before if handler != signal.SIG_IGN]
    for number in ours:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before:
            if number in ours:
                signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
