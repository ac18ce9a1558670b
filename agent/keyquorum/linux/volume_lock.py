# SPDX-License-Identifier: Apache-2.0
"""One administrator's act on a volume at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from keyquorum.errors import KeyquorumError, TryAgainError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = "/run/keyquorum"


@contextmanager
def exclusive(uuid: str, directory: str = _DIRECTORY) -> Iterator[None]:
    """Hold the volume's lock; raises `TryAgainError` when another process holds it."""
    path = os.path.join(directory, f"{uuid}.lock")
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TryAgainError(f"another keyquorum is working on volume {uuid}") from None
    try:
        yield
    finally:
        os.close(descriptor)
