# SPDX-License-Identifier: Apache-2.0
"""What io_uring(7) does for a process that must be able to end while a device owes it an answer.

A thread that reads a silent disk by read(2) cannot be killed, or hangs while the disk is closed: its process stays
until the disk answers. A request in a ring belongs to the kernel. Who asked waits for the ring, and may leave.
A device whose close alone waits for an answer is held by a ring: the last close is then the kernel's (`hold`).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct

from keyquorum.native import libc

_SYS_SETUP, _SYS_ENTER, _SYS_REGISTER = 425, 426, 427  # the same numbers on every architecture
_REGISTER_FILES = 2
_RINGS, _ENTRIES = 0, 0x10000000  # where to map what
_ONE_MAPPING = 1 << 0  # both rings are in one mapping: Linux 5.4
_OP_READ = 22  # Linux 5.6
_PARAMETERS = struct.Struct(
    "=30I"
)  # struct io_uring_params: 10 fields, the submission ring's 10, the completion ring's
_FEATURES, _ARRAY, _TAIL, _HEAD, _MASK, _COMPLETIONS = 5, 16, 11, 20, 22, 25
_ENTRY = struct.Struct("=BBHiQQIIQ24x")  # struct io_uring_sqe
_COMPLETION = struct.Struct("=QiI")  # struct io_uring_cqe
_COUNTER = struct.Struct("=I")
_PAGE = 4096


def hold(descriptor: int) -> int:
    """Have a new ring hold what a descriptor refers to; return the ring's descriptor.

    Closing `descriptor` is then not the last close. That comes some time after the ring is closed, from a thread of
    the kernel's, and whatever it waits for keeps no process. Raises OSError where the kernel has no io_uring or
    forbids it.
    """
    ring, _ = _set_up()
    try:
        libc.system_call(
            _SYS_REGISTER,
            ctypes.c_int(ring),
            ctypes.c_uint(_REGISTER_FILES),
            (ctypes.c_int * 1)(descriptor),
            ctypes.c_uint(1),
        )
    except OSError:
        os.close(ring)
        raise
    return ring


def _set_up() -> tuple[int, tuple[int, ...]]:
    """Make a ring with room for one request; return its descriptor and what the kernel says of it."""
    given = ctypes.create_string_buffer(_PARAMETERS.size)
    return libc.system_call(_SYS_SETUP, ctypes.c_uint(1), given), _PARAMETERS.unpack(given.raw)


class Ring:
    """Room for one request. Used by one thread; raises OSError where the kernel has no io_uring or forbids it."""

    def __init__(self) -> None:
        self._descriptor, found = _set_up()
        try:
            self._rings = libc.map_descriptor(self._descriptor, _PAGE, _RINGS)
            self._entry = libc.map_descriptor(self._descriptor, _PAGE, _ENTRIES)
        except OSError:
            os.close(self._descriptor)
            raise
        self._array, self._tail = self._rings + found[_ARRAY], self._rings + found[_TAIL]
        self._head, self._completions = self._rings + found[_HEAD], self._rings + found[_COMPLETIONS]
        self._last = _COUNTER.unpack(ctypes.string_at(self._rings + found[_MASK], 4))[0]
        self._done = 0

    def read(self, descriptor: int, offset: int, size: int) -> bytes:
        """Read up to `size` bytes at `offset`, however long it takes; raises OSError.

        What the device writes into is mapped for this request alone: if nobody waits any more when the device answers
        at last, it overwrites nothing that is used for something else.
        """
        buffer = libc.map_memory(size)
        entry = _ENTRY.pack(_OP_READ, 0, 0, descriptor, offset, buffer, size, 0, 0)
        ctypes.memmove(self._entry, entry, len(entry))
        ctypes.memmove(self._array, _COUNTER.pack(0), 4)
        ctypes.memmove(self._tail, _COUNTER.pack(self._done + 1), 4)
        libc.system_call(
            _SYS_ENTER, ctypes.c_int(self._descriptor), ctypes.c_uint(1), ctypes.c_uint(0), ctypes.c_uint(0), None, None
        )
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll()
        at = self._completions + (self._done & self._last) * _COMPLETION.size
        result = int(_COMPLETION.unpack(ctypes.string_at(at, _COMPLETION.size))[1])
        self._done += 1
        ctypes.memmove(self._head, _COUNTER.pack(self._done), 4)
        data = ctypes.string_at(buffer, max(0, result))
        libc.unmap(buffer, size)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return data

    def close(self) -> None:
        """Give the ring back."""
        libc.unmap(self._rings, _PAGE)
        libc.unmap(self._entry, _PAGE)
        os.close(self._descriptor)
