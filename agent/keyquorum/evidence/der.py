# SPDX-License-Identifier: Apache-2.0
"""Taking DER apart (X.690), where a library does not say what is needed: names, and extensions of makers.

Lengths are read as DER writes them: definite, and in the shortest form.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError

INTEGER, OCTETS, OID, SEQUENCE, IA5, BMP = 0x02, 0x04, 0x06, 0x30, 0x16, 0x1E
_LONG = 0x80
_MOST_OCTETS = 4


Element = tuple[int, bytes, bytes]  # a value: its tag, its bytes with tag and length, and without


def elements(data: bytes, what: str, most: int | None = None) -> list[Element]:
    """Take the content of a constructed value apart, or the first `most` of it; raises `TamperingError`."""
    found: list[Element] = []
    at, end = 0, len(data)
    while at < end and len(found) != most:
        start = at + 2
        size = data[at + 1] if start <= end else end
        if size >= _LONG:
            octets = size - _LONG
            size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
            if not 1 <= octets <= _MOST_OCTETS or size < _LONG or size >> 8 * (octets - 1) == 0:
                raise TamperingError(what, f"byte {at}", "has a length that DER does not have")
        behind = start + size
        if behind > end:
            raise TamperingError(what, f"byte {at}", "is longer than what it is in")
        found.append((data[at], data[at:behind], data[start:behind]))
        at = behind
    return found


def first(data: bytes, what: str) -> Element:
    """Take the value at the beginning; raises `TamperingError`."""
    found = elements(data, what, 1)
    if not found:
        raise TamperingError(what, "", "is empty")
    return found[0]
