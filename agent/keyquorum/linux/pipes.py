# SPDX-License-Identifier: Apache-2.0
"""The pipes between us and a program, and where its output goes (used by `linux.run` only)."""

from __future__ import annotations

import fcntl
import os

from keyquorum.secret import Secret

_CHUNK = 1 << 16


class Collected:
    """Output that is no secret."""

    def __init__(self, cap: int) -> None:
        self.data, self._cap = bytearray(), cap

    def take(self, descriptor: int) -> int:
        """Read once; return the number of bytes, 0 at the end. Raises `OverflowError` above the cap."""
        piece = os.read(descriptor, _CHUNK)
        if len(self.data) + len(piece) > self._cap:
            raise OverflowError
        self.data += piece
        return len(piece)


class Locked:
    """Output that goes straight into locked memory."""

    def __init__(self, cap: int) -> None:
        self.data, self.used, self._cap = Secret(cap + 1), 0, cap

    def take(self, descriptor: int) -> int:
        """As in `Collected`."""
        got = os.readv(descriptor, [self.data.view[self.used :]])
        self.used += got
        if self.used > self._cap:
            raise OverflowError
        return got


class Cut(Collected):
    """Error output: what is above the cap is read and dropped."""

    def take(self, descriptor: int) -> int:
        piece = os.read(descriptor, _CHUNK)
        self.data += piece[: self._cap - len(self.data)]
        return len(piece)


class Pipes:
    """The ends of the pipes to one program; ours do not block, and none of them is descriptor 0, 1 or 2."""

    def __init__(self, *, with_input: bool) -> None:
        self._open: list[int] = []
        self.output, self.their_output = self._make()
        self.errors, self.their_errors = self._make()
        self.their_input, self.input = self._make() if with_input else (-1, -1)
        for ours in (self.output, self.errors, self.input):
            if ours >= 0:
                os.set_blocking(ours, False)

    def _make(self) -> tuple[int, int]:
        ends = []
        for low in os.pipe():
            ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(low)
        self._open += ends
        return ends[0], ends[1]

    def shut(self, descriptor: int) -> None:
        """Close one end."""
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Close what is still open."""
        for descriptor in tuple(self._open):
            self.shut(descriptor)
