# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, also after a power cut: write, flush, rename, flush the directory."""

from __future__ import annotations

import _thread
import os
import stat

from keyquorum.errors import KeyquorumError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def write(path: str, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Create or replace `path`; missing directories are made, readable by root only when the file is.

    `owner` (user and group) gets the file before it has its name: somebody else may write in its directory.
    """
    try:
        _write(path, data, mode, os.rename, owner)
    except OSError as error:
        raise _failure(path, error) from None


def create(path: str, data: bytes, mode: int = 0o600) -> bool:
    """Create `path` as `write` does; say whether it is ours, for another process may have been faster."""
    try:
        _write(path, data, mode, _link)
    except FileExistsError:
        return False
    except OSError as error:
        raise _failure(path, error) from None
    return True


def _write(
    path: str, data: bytes, mode: int, put: Callable[[str, str], None], owner: tuple[int, int] | None = None
) -> None:
    directory = os.path.dirname(path) or "."
    temporary = f"{path}.{_thread.get_native_id()}.new"  # in the first thread the process's number
    _make_directories(directory, 0o700 if mode == 0o600 else 0o755)
    _unlink(temporary)  # of a thread with our number that a power cut ended
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        if owner is not None:
            os.fchown(descriptor, *owner)
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
        put(temporary, path)
    except BaseException:  # a signal as well: it may be half a recovery sheet
        _unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    sync_directory(directory)


def _link(temporary: str, path: str) -> None:
    os.link(temporary, path)
    os.unlink(temporary)


def _failure(path: str, error: OSError) -> KeyquorumError:
    return KeyquorumError(f"{path} cannot be written: {error.strerror}")


def read(path: str, most: int) -> bytes:
    """Return the content of a file of at most `most` bytes; b"" when it is missing, larger, or no file but a pipe."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            data = file.read(most + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be read: {error.strerror}") from None
    return data if len(data) <= most else b""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def remove(path: str) -> None:
    """Remove a file; a missing one is no error."""
    try:
        os.unlink(path)
        sync_directory(os.path.dirname(path) or ".")
    except FileNotFoundError:
        return
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be removed: {error.strerror}") from None


def _make_directories(directory: str, mode: int) -> None:
    """Make a directory and those above it, each flushed into the one above; raises OSError."""
    if os.path.isdir(directory):
        return
    above = os.path.dirname(directory) or "."
    _make_directories(above, mode)
    try:
        os.mkdir(directory, mode)
    except FileExistsError:  # another process was faster
        return
    sync_directory(above)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def sync_directory(directory: str) -> None:
    """Flush a directory's entries; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
