# SPDX-License-Identifier: Apache-2.0
"""Things that are slow to make (roots, images) are made once per recipe and kept.

An entry is a directory `NAME-HASH` that appears complete or not at all. Two processes that want the same entry wait
for each other by flock; a user keeps a shared lock until its process ends, so that tidying never takes away what
somebody boots from. Of each name only the newest few entries stay.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable

from guests.places import BUILD

KEPT_PER_NAME = 8
HASH_LENGTH = 16
_IDENTITY = "identity"

_held: dict[str, int] = {}  # entry -> descriptor of its lock, shared, for the life of this process


def file_digest(path: str) -> str:
    """What a recipe says of a file that it depends on."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached(name: str, recipe: str, make: Callable[[str], None], *, build_dir: str = BUILD) -> str:
    """The directory made by `make` for this recipe; made now if it is not there."""
    os.makedirs(build_dir, exist_ok=True)
    entry = os.path.join(build_dir, f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:HASH_LENGTH]}")
    if entry in _held:
        return entry
    lock = os.open(f"{entry}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not os.path.isdir(entry):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(entry):
                _make(entry, recipe, make)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(entry)
    except BaseException:
        os.close(lock)
        raise
    _held[entry] = lock
    _tidy(build_dir, name)
    return entry


def identity(entry: str) -> str:
    """What tells this entry from another one made by the same recipe at another time, with newer packages, say.

    It belongs into the recipe of whatever is made from the entry.
    """
    with open(os.path.join(entry, _IDENTITY), encoding="utf-8") as file:
        return file.read()


def _make(entry: str, recipe: str, make: Callable[[str], None]) -> None:
    """Build beside the final name and rename; what a killed build left behind goes first."""
    unfinished = f"{entry}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.mkdir(unfinished)
    try:
        make(unfinished)
        for name, text in (("recipe", recipe), (_IDENTITY, uuid.uuid4().hex)):
            with open(os.path.join(unfinished, name), "w", encoding="utf-8") as file:
                file.write(text)
        os.rename(unfinished, entry)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _tidy(build_dir: str, name: str) -> None:
    """Remove the oldest entries of this name beyond the number kept, unless somebody uses them."""
    entries = [
        os.path.join(build_dir, found)
        for found in os.listdir(build_dir)
        if found.startswith(f"{name}-") and len(found) == len(name) + 1 + HASH_LENGTH
    ]
    entries.sort(key=_last_used, reverse=True)
    for old in entries[KEPT_PER_NAME:]:
        if old not in _held:
            _remove_unless_used(old)


def _last_used(entry: str) -> float:
    try:
        return os.stat(entry).st_mtime
    except FileNotFoundError:  # tidied by another process
        return 0.0


def _remove_unless_used(entry: str) -> None:
    lock = os.open(f"{entry}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with contextlib.closing(os.fdopen(lock)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(entry, ignore_errors=True)
