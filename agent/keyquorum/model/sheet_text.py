# SPDX-License-Identifier: Apache-2.0
"""The text of a recovery sheet: five lines of 15 characters that a person can type (docs/holders-people.md §3).

13 characters of a line are data and 2 check it. All five lines together are the version and 40 bytes: to which volume
and which place the sheet belongs (2 bytes each), the identity (32), a checksum (4). What was typed is read byte by
byte from locked memory into locked memory.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.secret import Identity, Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
LINES, LINE_SIZE, CHECK_SIZE, GROUP = 5, 15, 2, 5
SYMBOLS = LINES * LINE_SIZE
TAG_SIZE, IDENTITY_SIZE, CHECKSUM_SIZE = 2, 32, 4
WHAT = "sheet"
_DATA_SIZE = LINE_SIZE - CHECK_SIZE
_BYTES = 2 * TAG_SIZE + IDENTITY_SIZE + CHECKSUM_SIZE
_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Douglas Crockford's base32
_LAYOUT_HINT = "mind the keyboard layout: the console of a boot may have the US one"
_SEPARATORS = b" -\t\r\n"
_NEWLINE = 0x0A
_BAD, _SKIP = 0xFF, 0xFE


def _make_values() -> bytes:
    """Return the value of each typed byte; small letters, O, I and L are read as what they look like."""
    values = bytearray([_BAD] * 256)
    for value, symbol in enumerate(_ALPHABET):
        values[symbol] = values[symbol | 0x20] = value
    for symbol in b"Oo":
        values[symbol] = 0
    for symbol in b"IiLl":
        values[symbol] = 1
    for symbol in _SEPARATORS:
        values[symbol] = _SKIP
    return bytes(values)


_VALUES = _make_values()


class Sheet(Record):
    """A sheet whose checks are right. The tags say where it belongs; comparing them is the holder's work."""

    volume_tag: bytes
    place_tag: bytes
    identity: Identity


def volume_tag(volume: str) -> bytes:
    """Return the mark of a volume's UUID: short, it only tells sheets apart."""
    return sodium.sha256(b"keyquorum/v1/sheet-volume\x00" + volume.encode())[:TAG_SIZE]


def place_tag(set_id: bytes, name: str) -> bytes:
    """Return the mark of a holder in a set."""
    return sodium.sha256(b"keyquorum/v1/sheet-place\x00" + set_id + name.encode())[:TAG_SIZE]


def encode(identity: Identity, volume: bytes, place: bytes) -> tuple[str, ...]:
    """Return the five lines, in groups of five characters. They are to be shown, so they are ordinary text."""
    with Secret(_BYTES) as data:
        view, split = data.view, _BYTES - CHECKSUM_SIZE
        view[: 2 * TAG_SIZE] = volume + place
        view[2 * TAG_SIZE : split] = identity.view
        view[split:] = _checksum(volume, place, identity)
        values = [VERSION, *_to_symbols(view)]
    lines = []
    for number in range(1, LINES + 1):
        row = values[(number - 1) * _DATA_SIZE : number * _DATA_SIZE]
        text = "".join(chr(_ALPHABET[value]) for value in (*row, *_check(number, row)))
        lines.append("-".join(text[start : start + GROUP] for start in range(0, LINE_SIZE, GROUP)))
    return tuple(lines)


def take_lines(typed: Secret, symbols: Secret, filled: int) -> int:
    """Add what was typed to `symbols`, which holds `filled` of `SYMBOLS` values; return how many it holds then.

    Takes one line, several or all, with or without line breaks. Each line is checked. Raises `MalformedError` that
    names the line; `symbols` then holds no more than before.
    """
    at = row_start = filled
    for byte in typed.view:
        value = _VALUES[byte]
        line, column = at // LINE_SIZE + 1, at % LINE_SIZE + 1
        if byte == _NEWLINE:
            _check_row(row_start, at)
            row_start = at
        if value == _SKIP:
            continue
        if at == SYMBOLS:
            raise MalformedError(WHAT, "", f"more was typed than its {LINES} lines")
        if value == _BAD:
            raise _wrong(line, f"has a character at place {column} that no sheet has")
        symbols.view[at] = value
        at += 1
        if at % LINE_SIZE == 0:
            _check_line(symbols, line)
    _check_row(row_start, at)
    if at == filled:
        raise _wrong(at // LINE_SIZE + 1, f"has 0 characters, not {LINE_SIZE}")
    return at


def decode(symbols: Secret) -> Sheet:
    """Return what all lines together say; raises `MalformedError` for another version or a wrong checksum."""
    if symbols.view[0] != VERSION:
        raise MalformedError(WHAT, "version", f"{symbols.view[0]} is not known here (this program knows {VERSION})")
    split = _BYTES - CHECKSUM_SIZE
    with Secret(_BYTES) as data:
        _to_bytes(symbols, data)
        volume, place = bytes(data.view[:TAG_SIZE]), bytes(data.view[TAG_SIZE : 2 * TAG_SIZE])
        identity = Identity.from_view(data.view[2 * TAG_SIZE : split])
        right = bytes(data.view[split:]) == _checksum(volume, place, identity)
    if not right:
        identity.wipe()
        raise MalformedError(WHAT, "", "its lines do not belong together", "use the lines of one sheet only")
    return Sheet(volume_tag=volume, place_tag=place, identity=identity)


def _wrong(line: int, problem: str) -> MalformedError:
    return MalformedError(WHAT, f"line {line}", problem, _LAYOUT_HINT)


def _check_row(start: int, end: int) -> None:
    """Refuse a row as typed that is not made of whole lines; name the line where it went wrong."""
    size = end - start
    if size % LINE_SIZE:
        whole = 0 if size < 2 * LINE_SIZE else size // LINE_SIZE
        raise _wrong(start // LINE_SIZE + whole + 1, f"has {size - whole * LINE_SIZE} characters, not {LINE_SIZE}")


def _checksum(volume: bytes, place: bytes, identity: Identity) -> bytes:
    prefix = b"keyquorum/v1/sheet\x00" + bytes((VERSION,)) + volume + place
    return sodium.sha256_over_secret(prefix, identity)[:CHECKSUM_SIZE]


def _check_line(symbols: Secret, line: int) -> None:
    row = symbols.view[(line - 1) * LINE_SIZE : line * LINE_SIZE]
    data, check = row[:_DATA_SIZE], tuple(row[_DATA_SIZE:])
    if _check(line, data) == check:
        return
    for other in range(1, LINES + 1):
        if _check(other, data) == check:
            raise _wrong(line, f"is line {other} of a sheet")
    raise _wrong(line, "does not match its check letters, the last two")


def _check(line: int, data: Iterable[int]) -> tuple[int, int]:
    """Return the two check values of a line: Reed-Solomon over GF(32), modulo x^5+x^2+1, with roots 2 and 4.

    The line's number is a value before the data. Any one or two wrong characters are found for certain, so are
    swapped ones, and a line in the place of another.
    """
    high = low = 0
    for value in (line, *data):
        feedback = value ^ high
        twice = _double(feedback)
        four_times = _double(twice)
        high = low ^ twice ^ four_times  # 6 · feedback
        low = _double(four_times)  # 8 · feedback
    return high, low


def _double(value: int) -> int:
    return value << 1 ^ (value >> 4) * 0b100101


def _to_symbols(data: memoryview) -> Iterable[int]:
    """Cut bytes into values of five bits, the highest first."""
    bits = held = 0
    for byte in data:
        bits, held = bits << 8 | byte, held + 8
        while held >= 5:
            held -= 5
            yield bits >> held & 31
        bits &= 31


def _to_bytes(symbols: Secret, data: Secret) -> None:
    """Join the data values behind the version into bytes."""
    bits = held = at = 0
    for place, value in enumerate(symbols.view):
        if place == 0 or place % LINE_SIZE >= _DATA_SIZE:
            continue
        bits, held = (bits << 5 | value) & 0xFFF, held + 5
        if held >= 8:
            held -= 8
            data.view[at] = bits >> held & 0xFF
            at += 1
