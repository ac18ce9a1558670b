# SPDX-License-Identifier: Apache-2.0
"""Taking turns with other processes: the kernel lets them in one after the other, in the order in which they asked."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from keyquorum.errors import KeyquorumError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def turn(directory: str) -> Iterator[None]:
    """Keep everybody else out who takes turns at this directory; a process that ends gives its turn back."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyquorumError(f"{directory} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
