# SPDX-License-Identifier: Apache-2.0
"""Where test machines keep things: a cache that stays, and short-lived directories with short names.

Unix sockets take 107 bytes of path, so what one machine needs while it runs lives directly under the system's
temporary directory, never under a test's own (long) one.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from guests import guardian

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Without links: checkouts that share the cache name the same things alike, and make them once.
BUILD = os.path.realpath(os.path.join(REPOSITORY, "build", "guests"))
LONGEST_SOCKET_PATH = 100


@contextlib.contextmanager
def run_directory() -> Iterator[str]:
    """A private directory with a short path; gone at the end, even if this process is killed."""
    base = tempfile.gettempdir()
    path = tempfile.mkdtemp(prefix="kqg-", dir=base if len(base) < LONGEST_SOCKET_PATH // 2 else "/tmp")
    guardian.remove_later(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        guardian.spare_directory(path)


def socket_path(directory: str, name: str) -> str:
    """A path for a unix socket; refuses one that the kernel would refuse later with a worse message."""
    path = os.path.join(directory, name)
    if len(path) > LONGEST_SOCKET_PATH:
        raise ValueError(f"socket path of {len(path)} bytes, at most {LONGEST_SOCKET_PATH}: {path}")
    return path
