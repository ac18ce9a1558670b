# SPDX-License-Identifier: Apache-2.0
"""Memory for secrets: locked, never dumped, wiped as soon as a secret is no longer needed (I1, docs/threats.md §4).

One arena per process. Where the kernel has memfd_secret(2) its pages are not even in the kernel's direct map;
elsewhere they are locked and kept out of dumps and children. A `Secret` is a piece of the arena: code that handles
it passes addresses, so that no immutable Python object ever holds its bytes.
"""

from __future__ import annotations

import _thread
import ctypes
import struct

from keyquorum.errors import KeyquorumError
from keyquorum.native import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_ARENA_SIZE = 1 << 19  # 255 holders, the most a policy has, may be opening X-Wing seals of 1 KiB each side by side
_ALIGN = 16


class _Arena:
    """A fixed piece of protected memory, handed out in multiples of 16 bytes."""

    def __init__(self) -> None:
        try:
            self.address = libc.map_secret_memory(_ARENA_SIZE)
            self.protection = "memfd_secret"
        except OSError:
            self.address, locked = libc.map_locked_memory(_ARENA_SIZE)
            self.protection = "mlock" if locked else "none"
        self._lock = _thread.allocate_lock()
        self._free: list[tuple[int, int]] = [(0, _ARENA_SIZE)]
        self._top = 0  # nothing beyond was ever used, so that wiping does not fetch pages only to write zeros

    def take(self, size: int) -> int:
        """Reserve `size` bytes, all zero; return their address."""
        with self._lock:
            for index, (offset, available) in enumerate(self._free):
                if available >= size:
                    if available == size:
                        del self._free[index]
                    else:
                        self._free[index] = (offset + size, available - size)
                    self._top = max(self._top, offset + size)
                    return self.address + offset
        raise KeyquorumError(f"no protected memory left for {size} bytes")

    def give_back(self, address: int, size: int) -> None:
        """Wipe a piece and make it usable again, joined with its free neighbours."""
        libc.zero(address, size)
        with self._lock:
            joined: list[tuple[int, int]] = []
            for offset, available in sorted((*self._free, (address - self.address, size))):
                if joined and sum(joined[-1]) == offset:
                    joined[-1] = (joined[-1][0], joined[-1][1] + available)
                else:
                    joined.append((offset, available))
            self._free = joined

    def wipe(self) -> None:
        """Wipe everything; nothing may be used afterwards."""
        libc.zero(self.address, self._top)


_arena: _Arena | None = None


def _get_arena() -> _Arena:
    global _arena
    if _arena is None:
        libc.forbid_dumps()
        _arena = _Arena()
    return _arena


def protection() -> str:
    """Return what protects this process' secrets: "memfd_secret", "mlock" or "none"."""
    return _get_arena().protection


def keep_out_of_swap() -> None:
    """Lock all memory of a program, if it may: arithmetic leaves copies outside the arena (docs/threats.md §4)."""
    libc.lock_everything()


def wipe_all() -> None:
    """Wipe every secret of this process. The last act of a program, on every way out."""
    if _arena is not None:
        _arena.wipe()


def start_afresh() -> None:
    """Forget the arena after a fork: the child must not touch memory that is its parent's."""
    global _arena
    _arena = None


class Secret:
    """`size` secret bytes in protected memory. Use it as a context manager, or call `wipe`.

    It has no `str`, its repr is redacted, and comparing goes through `equals`. Using it after it was wiped raises
    `ValueError`: C functions would write through address 0.
    """

    __slots__ = ("_address", "_reserved", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._reserved = max(_ALIGN, (size + _ALIGN - 1) // _ALIGN * _ALIGN)
        self._address = _get_arena().take(self._reserved)

    @classmethod
    def from_view(cls, view: bytes | bytearray | memoryview) -> Self:
        """Copy bytes that exist already. The caller wipes its own copy if it can (`wipe_bytes`)."""
        secret = cls(len(view))
        secret.view[:] = view
        return secret

    @classmethod
    def from_integer(cls, value: int, size: int) -> Self:
        """Write a packed integer (see `sharing.field`) of `size` bytes, eight bytes at a time."""
        if value < 0 or value.bit_length() > 8 * size:
            raise ValueError(f"the integer does not fit in {size} bytes")
        secret = cls(size)
        padded = secret.padded
        for offset in range(0, secret._reserved, 8):
            struct.pack_into("<Q", padded, offset, (value >> (8 * offset)) & 0xFFFFFFFFFFFFFFFF)
        return secret

    @property
    def address(self) -> int:
        """Where the bytes are."""
        if not self._address:
            raise ValueError("the secret was wiped")
        return self._address

    @property
    def is_wiped(self) -> bool:
        """Say whether the bytes are gone."""
        return not self._address

    @property
    def padded(self) -> memoryview:
        """All reserved bytes, zeros after `size`."""
        return memoryview((ctypes.c_ubyte * self._reserved).from_address(self.address)).cast("B")

    @property
    def view(self) -> memoryview:
        """A writable view of the bytes themselves; it must not outlive the secret."""
        return self.padded[: self.size]

    def integer(self) -> int:
        """Return the bytes as a packed integer. Python cannot wipe it: docs/threats.md §4 says what remains."""
        padded, value = self.padded, 0
        for offset in range(0, self._reserved, 8):
            value |= struct.unpack_from("<Q", padded, offset)[0] << (8 * offset)
        return value

    def part(self, start: int, size: int) -> Secret:
        """Return a copy of some of the bytes as a secret of its own."""
        if start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"bytes {start} to {start + size} of a secret of {self.size}")
        copy = Secret(size)
        libc.copy(copy.address, self.address + start, size)
        return copy

    def equals(self, other: Secret) -> bool:
        """Compare in constant time."""
        if self.size != other.size:
            return False
        difference = 0
        for mine, theirs in zip(self.view, other.view, strict=True):
            difference |= mine ^ theirs
        return difference == 0

    def wipe(self) -> None:
        """Overwrite the bytes and give the memory back. May be called twice."""
        if self._address:
            _get_arena().give_back(self._address, self._reserved)
            self._address = 0

    def __len__(self) -> int:
        return self.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.size} bytes>"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is never serialised")


class VolumeKey(Secret):
    """The key of dm-crypt itself."""

    __slots__ = ()


class KeyEncryptionKey(Secret):
    """The secret that is split, and that wraps the volume key."""

    __slots__ = ()


class Identity(Secret):
    """The 32-byte seed of the private key that a fragment is sealed to."""

    __slots__ = ()


class Share(Secret):
    """One Shamir point, behind its blinding bytes."""

    __slots__ = ()


def wipe_bytes(value: bytes | bytearray) -> None:
    """Overwrite a bytes object that a library insisted on returning. It must not be used afterwards."""
    if isinstance(value, bytearray):
        value[:] = bytes(len(value))
    elif len(value) > 1:  # objects of 0 and 1 bytes are shared by the interpreter
        libc.zero(id(value) + bytes.__basicsize__ - 1, len(value))
