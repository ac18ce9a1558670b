# SPDX-License-Identifier: Apache-2.0
"""Logs of measurements: the firmware's, our copies of it, and systemd's of userspace (docs/holders-tpm.md §7, §8)."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from _json import encode_basestring_ascii

from keyquorum.errors import KeyquorumError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRMWARE_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
USERSPACE_LOG = "/run/log/systemd/tpm2-measure.log"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PAUSE = 0.02


def read(path: str, limit: int) -> bytes | None:
    """Return a log's content up to one byte more than `limit`, or None when it cannot be read."""
    pieces, size = [], 0
    try:
        with open(path, "rb", buffering=0) as file:  # securityfs gives no size, and one piece at a time
            while size <= limit and (piece := file.read(limit + 1 - size)):
                pieces.append(piece)
                size += len(piece)
    except OSError:
        return None
    return b"".join(pieces)


def reference_path(directory: str, volume: str, name: str) -> str:
    """Return where the reference log of a volume's holder is kept."""
    file = f"{volume}-{name}.eventlog"
    if "/" in file or file.startswith("."):
        raise UsageError(f"{file!r} cannot be the name of a file")
    return os.path.join(directory, file)


def store(path: str, content: bytes) -> None:
    """Replace a file, readable by its owner alone, so that a crash leaves the old or the new content (I6)."""
    new = path + ".new"
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be written: {error.strerror}") from None


class UserspaceLog:
    """systemd's log of userspace measurements, held locked while a PCR is extended and the record is added.

    As systemd does it (tpm2-util.c): flock on the file, sticky bit set while a record is being written, so that a
    writer that died is noticed; then nothing is added any more. A log that cannot be written stops no measurement.
    """

    def __init__(self, deadline: float, path: str = "") -> None:
        self._descriptor = _open_locked(path or USERSPACE_LOG, deadline)

    def add(self, pcr: int, digests: Mapping[str, bytes], text: str, event_type: str) -> None:
        """Append one record, in the form systemd gives it (RFC 7464, a subset of CEL-JSON)."""
        if self._descriptor is None:
            return
        try:
            record = _record(pcr, digests, text, event_type)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, 0o600)
            os.fsync(self._descriptor)
        except OSError:
            return  # the sticky bit stays and says that the log is not complete

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open_locked(path: str, deadline: float) -> int | None:
    """Open and lock the log and mark it as being written; None when that cannot be, or somebody died doing it."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
    except OSError:
        return None
    usable = False
    try:
        lock(descriptor, deadline)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) and not mode & stat.S_ISVTX:
            os.fchmod(descriptor, 0o600 | stat.S_ISVTX)
            usable = True
    except OSError:
        usable = False
    if usable:
        return descriptor
    os.close(descriptor)
    return None


def lock(descriptor: int, deadline: float) -> None:
    """Take the exclusive lock of a file; raises OSError when somebody else holds it until the deadline."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _record(pcr: int, digests: Mapping[str, bytes], text: str, event_type: str) -> bytes:
    with open(_BOOT_ID, "rb") as file:
        boot_id = file.read(64).decode("ascii").strip().replace("-", "")
    rows = ",".join(f'{{"hashAlg":"{bank}","digest":"{value.hex()}"}}' for bank, value in digests.items())
    microseconds = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    content = (
        f'{{"string":{encode_basestring_ascii(text)},"bootId":"{boot_id}",'
        f'"timestamp":{microseconds},"eventType":"{event_type}"}}'
    )
    record = f'{{"pcr":{pcr},"digests":[{rows}],"content_type":"systemd","content":{content}}}'
    return b"\x1e" + record.encode("ascii") + b"\n"
