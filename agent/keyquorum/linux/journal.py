# SPDX-License-Identifier: Apache-2.0
"""Entries with fields for the systemd journal, by its native protocol (docs/daemon.md §4).

One datagram for each entry, as systemd's JOURNAL_NATIVE_PROTOCOL.md has it. The boot path cannot afford
systemd.journal, and one way to write entries is enough.
"""

from __future__ import annotations

import os
import struct
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_STANDARD_ERROR = 2


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram of an entry; empty fields are left out."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
        elif data:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


def send(fields: Mapping[str, str], path: str = SOCKET) -> bool:
    """Write an entry; say whether the journal took it. It never waits for a journal that is stuck."""
    try:
        with_journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        try:
            with_journal.sendto(encode(fields), path)
        finally:
            with_journal.close()
    except OSError:
        return False
    return True


def reads_standard_error() -> bool:
    """Say whether what we print as errors goes to the journal anyway (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        stream = os.fstat(_STANDARD_ERROR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"
