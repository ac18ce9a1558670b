# SPDX-License-Identifier: Apache-2.0
"""A strict reader of the part of CBOR that attestation documents are made of (RFC 8949 §4.2.1, deterministic).

Whole numbers, byte and text strings, lists, maps, null and one tag at the beginning; definite lengths in their
shortest form, no key twice, nothing after the end. So one value has one encoding, but for the order of a map's keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_DEPTH = 8
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG, _SIMPLE = range(8)
_NULL = 22
_SHORTEST = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}  # (size, lowest value that needs it)


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def fail(self, problem: str) -> NoReturn:
        raise TamperingError(self._what, f"byte {self._at}", problem)

    def take(self, size: int) -> bytes:
        left = len(self._data) - self._at
        if size > left:
            self.fail(f"{size} bytes wanted, {left} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def head(self) -> tuple[int, int]:
        """Take a major type and its argument."""
        first = self.take(1)[0]
        major, argument = first >> 5, first & 0x1F
        if argument < 24:
            return major, argument
        if argument not in _SHORTEST:
            self.fail("an indefinite or reserved length")
        size, lowest = _SHORTEST[argument]
        value = int.from_bytes(self.take(size), "big")
        if value < lowest:
            self.fail("a number that is longer than it must be")
        return major, value

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep")
        major, argument = self.head()
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            return self._text(argument)
        if major == _LIST:
            self._check_count(argument)
            return [self.value(depth + 1) for _ in range(argument)]
        if major == _MAP:
            return self._map(argument, depth)
        if major != _SIMPLE or argument != _NULL:
            self.fail("a kind of value that does not belong here")
        return None

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            self.fail("a text that is not UTF-8")

    def _check_count(self, count: int) -> None:
        if count > len(self._data) - self._at:  # each takes a byte at least
            self.fail(f"{count} values in {len(self._data) - self._at} bytes")

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        self._check_count(count)
        found: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, (int, str)):
                self.fail("a key that is neither number nor text")
            if key in found:
                self.fail("a key that is there twice")
            found[key] = self.value(depth + 1)
        return found

    def finish(self) -> None:
        if self._at != len(self._data):
            self.fail(f"{len(self._data) - self._at} bytes too many")


def parse(data: bytes, what: str, cap: int, tag: int | None = None) -> Any:
    """Read one value from at most `cap` bytes; before it the tag `tag` may be. Raises `TamperingError`."""
    if len(data) > cap:
        raise TamperingError(what, "", f"{len(data)} bytes are more than the {cap} allowed")
    start = 1 if tag is not None and data[:1] == bytes((_TAG << 5 | tag,)) else 0
    reader = _Reader(bytes(data[start:]), what)
    found = reader.value(0)
    reader.finish()
    return found


def byte_string(data: bytes) -> bytes:
    """Encode bytes of less than 64 KiB."""
    size = len(data)
    if size < 24:
        return bytes((_BYTES << 5 | size,)) + data
    width, argument = (1, 24) if size < 256 else (2, 25)
    return bytes((_BYTES << 5 | argument,)) + size.to_bytes(width, "big") + data
