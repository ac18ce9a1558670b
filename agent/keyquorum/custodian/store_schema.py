# SPDX-License-Identifier: Apache-2.0
"""The custodian's database: its tables, how it is opened, and what SQLite's errors mean (docs/custodian.md §8)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from keyquorum.errors import KeyquorumError, TamperingError, TryAgainError, UsageError
from keyquorum.linux.atomic_file import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable

APPLICATION_ID = 0x6B71_6375  # "kqcu", which file(1) shows
VERSION = 1
BUSY_SECONDS = 10
WHAT = "the custodian's store"

# Blobs of fixed size are checked by SQLite itself, so that a row that passes has the shape that the code expects.
_FRAGMENT = """
    volume TEXT NOT NULL CHECK (length(volume) = 36),
    set_id BLOB NOT NULL CHECK (length(set_id) = 16),
    epoch INTEGER NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
    idx INTEGER NOT NULL CHECK (idx BETWEEN 1 AND 255)
"""
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE entry (number INTEGER PRIMARY KEY CHECK (number >= 0), body BLOB NOT NULL) STRICT",
    """CREATE TABLE node (
        level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL CHECK (length(hash) = 32),
        PRIMARY KEY (level, position)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY CHECK (size >= 0), note BLOB NOT NULL) STRICT",
    """CREATE TABLE witnessed (
        origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL CHECK (length(root) = 32),
        note BLOB NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE machine (
        name TEXT PRIMARY KEY, client_key BLOB NOT NULL UNIQUE CHECK (length(client_key) = 32),
        attestation_key BLOB NOT NULL, qualified_name BLOB NOT NULL, enrolled INTEGER NOT NULL,
        revoked INTEGER) STRICT""",
    """CREATE TABLE token (hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
        machine TEXT NOT NULL, labels TEXT NOT NULL, listed_ek BLOB NOT NULL, expires INTEGER NOT NULL,
        spent INTEGER) STRICT, WITHOUT ROWID""",
    """CREATE TABLE owner (
        machine TEXT NOT NULL REFERENCES machine (name), key BLOB NOT NULL CHECK (length(key) = 32),
        PRIMARY KEY (machine, key)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE serial (
        owner TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, highest INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32), PRIMARY KEY (owner, kind, name)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE clock (
        machine TEXT PRIMARY KEY REFERENCES machine (name), resets INTEGER NOT NULL, restarts INTEGER NOT NULL,
        clock INTEGER NOT NULL, safe INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE volume_epochs (
        volume TEXT NOT NULL, set_id BLOB NOT NULL, highest INTEGER NOT NULL, lowest INTEGER NOT NULL,
        owner TEXT NOT NULL, PRIMARY KEY (volume, set_id)) STRICT, WITHOUT ROWID""",
    f"""CREATE TABLE deposit ({_FRAGMENT},
        machine TEXT NOT NULL REFERENCES machine (name), sealed BLOB NOT NULL, policy BLOB NOT NULL,
        reference BLOB NOT NULL, number INTEGER NOT NULL REFERENCES entry (number),
        PRIMARY KEY (volume, set_id, epoch, idx)) STRICT, WITHOUT ROWID""",
    f"""CREATE TABLE nonce (hash BLOB PRIMARY KEY CHECK (length(hash) = 32), {_FRAGMENT},
        machine TEXT NOT NULL, expires INTEGER NOT NULL, spent INTEGER) STRICT, WITHOUT ROWID""",
    "CREATE INDEX nonce_machine ON nonce (machine, expires)",
    "CREATE INDEX nonce_expires ON nonce (expires)",
    f"""CREATE TABLE release (number INTEGER PRIMARY KEY REFERENCES entry (number), {_FRAGMENT},
        machine TEXT NOT NULL, at INTEGER NOT NULL) STRICT""",
    "CREATE INDEX release_fragment ON release (volume, set_id, idx, at)",
    f"""CREATE TABLE pending (number INTEGER PRIMARY KEY REFERENCES entry (number), {_FRAGMENT},
        machine TEXT NOT NULL, expires INTEGER NOT NULL, closed INTEGER) STRICT""",
    "CREATE INDEX pending_fragment ON pending (volume, set_id, epoch, idx, machine)",
    """CREATE TABLE approval (
        pending INTEGER NOT NULL REFERENCES pending (number), operator TEXT NOT NULL, envelope BLOB NOT NULL,
        number INTEGER NOT NULL REFERENCES entry (number), PRIMARY KEY (pending, operator)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE evidence (number INTEGER PRIMARY KEY REFERENCES entry (number), result BLOB NOT NULL) STRICT",
)
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_WAIT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def failure(error: sqlite3.Error) -> KeyquorumError:
    """Return one of our errors for one of SQLite's. Whatever failed was rolled back."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return KeyquorumError(f"{WHAT}: a rule of its tables forbids this, nothing was changed ({error})")
    if not code:  # of Python's module, not of SQLite: a closed connection, or another thread's
        return KeyquorumError(f"{WHAT}: cannot be used like this ({error})")
    if code in _WAIT:
        return TryAgainError(f"{WHAT}: another process has been writing for {BUSY_SECONDS} s", "ask again")
    if code in _NO_ROOM:
        name = getattr(error, "sqlite_errorname", "SQLITE_IOERR")
        return KeyquorumError(
            f"{WHAT}: cannot be written or read ({name}), nothing was changed",
            "make room on its file system and look at the kernel log; then ask again",
        )
    return TamperingError(WHAT, "", "is damaged or was changed", "restore a backup, then give it the missing entries")


def new_file(path: str, fill: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """Make a file that only its owner may read, and fill it; it is there whole or not at all.

    Raises `UsageError` if there is something at `path`, `KeyquorumError` if it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name another file: no store is ever overwritten") from None
    except OSError as error:
        raise KeyquorumError(f"cannot make {path}: {error.strerror}") from None
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _prepare(connection)
            fill(connection)
            sync_directory(os.path.dirname(path) or ".")
        except BaseException:
            connection.close()
            raise
    except BaseException as error:  # a signal as well: half a store would be in the way of the next attempt
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with suppress(OSError):
                os.unlink(name)
        if isinstance(error, sqlite3.Error):
            raise failure(error) from None
        if isinstance(error, OSError):
            raise KeyquorumError(f"cannot make {path}: {error.strerror}") from None
        raise
    return connection


def make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables, within the transaction of the caller."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def connect(path: str) -> sqlite3.Connection:
    """Open a store of this version; raises `UsageError` for another file, `TamperingError` for a damaged one.

    Another program's database is left as it is.
    """
    if not os.path.isfile(path):
        raise UsageError(f"there is no custodian's store at {path}", "make one: keyquorum custodian init")
    if os.stat(path).st_mode & 0o077:
        raise UsageError(f"{path} can be read or written by others than its owner", f"chmod 0600 {path}")
    try:
        # One thread at a time: a desk's own, or whoever writes for all (`group_commit`).
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:  # no descriptor left, for one
        raise failure(error) from None
    try:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if found != [APPLICATION_ID, VERSION]:
            raise _another(path, *found)
        _prepare(connection)
    except (sqlite3.Error, KeyquorumError) as error:
        connection.close()
        raise failure(error) if isinstance(error, sqlite3.Error) else error from None
    return connection


def _another(path: str, application: int, version: int) -> UsageError:
    if application == APPLICATION_ID:
        return UsageError(f"{path} is a store of version {version}, this program knows {VERSION}", "update it")
    return UsageError(f"{path} is no custodian's store")


def _prepare(connection: sqlite3.Connection) -> None:
    """Have every write on the disk before it counts, and nothing deleted left in the file."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise KeyquorumError(f"{WHAT}: its file system cannot have a write-ahead log", "take a local one")
    for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
