# SPDX-License-Identifier: Apache-2.0
"""A child that is forked before any thread begins, and watches if this boot falls back to its prompt (docs/boot.md §9).

Threads that ask holders may hang for hours, and in a child of a process with threads whatever they held stays locked
for ever: OpenSSL's locks, the resolver's, our own (docs/decisions/0060-forked-before-threads.md). So the child is made
at the start, before there is memory for secrets, and sleeps on a pipe: an order has it watch, the end has it end.
"""

from __future__ import annotations

import os

from keyquorum import process, secret
from keyquorum.errors import TamperingError
from keyquorum.linux import boot_record
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_ORDER = 32 * 1024
_WHAT = "the order to watch"


class Standby:
    """The parent's end."""

    def __init__(self, writing: int) -> None:
        self._writing = writing

    def watch(self, *, at_once: bool, asked: list[list[object]]) -> None:
        """Have the child watch. `asked` is what is remembered of custodians (`remote.Pacing.rows`)."""
        try:
            os.write(self._writing, strict_json.serialise({"at_once": at_once, "asked": asked}))
        except OSError as error:  # the child is gone, and the prompt stands all the same
            boot_record.to_kernel_log(f"nobody watches for late holders: {error.strerror}")
        self.dismiss()

    def dismiss(self) -> None:
        """Let the child end; nothing is waited for."""
        os.close(self._writing)


def stand_by(watch: Callable[[bool, list[list[object]]], None]) -> Standby | None:
    """Leave a child waiting, to do `watch` when it is told; None when there is no process or pipe to be had."""
    ends: tuple[int, ...] = ()
    try:
        ends = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except OSError as error:
        for end in ends:
            os.close(end)
        boot_record.to_kernel_log(f"nobody watches for late holders: {error.strerror}")
        return None
    reading, writing = ends
    if child:
        os.close(reading)
        return Standby(writing)
    code = 1
    try:
        os.close(writing)
        secret.start_afresh()
        order = _wait(reading)
        # Only now: locking all memory would copy every page that this process and its parent share.
        code = process.run(lambda: _obey(order, watch)) if order else 0
    finally:
        os._exit(code)


def _wait(reading: int) -> bytes:
    """Hold on to nothing that somebody waits for, the boot script's pipe before all, and sleep; return the order."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    said = b""
    while len(said) <= _MAX_ORDER and (piece := os.read(reading, _MAX_ORDER)):
        said += piece
    os.close(reading)
    return said


def _obey(order: bytes, watch: Callable[[bool, list[list[object]]], None]) -> int:
    fields = Fields.read(order, _WHAT, _MAX_ORDER, TamperingError)
    watch(fields.flag("at_once"), fields.rows("asked"))
    return 0
