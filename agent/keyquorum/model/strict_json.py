# SPDX-License-Identifier: Apache-2.0
"""JSON as keyquorum accepts and writes it: capped, not deep, no name twice, no fractions, nothing after the end.

The module `json` imports `re` and `enum`, which costs a boot twice the start of a bare interpreter. Its scanner is
written in C and needs neither, so it is used directly (docs/decisions/0003-boot-imports.md).
"""

from __future__ import annotations

import binascii
from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from keyquorum.errors import MalformedError, TamperingError

    ErrorType = type[MalformedError | TamperingError]

MAX_INTEGER = 1 << 63
MAX_DEPTH = 32  # far more than any object of ours has; every later walk through a value is safe from exhaustion
_SPACE = " \t\n\r"
_BOXES = frozenset((dict, list, tuple))
_PLAIN = (str, int, type(None))
_WRITABLE = frozenset((*_BOXES, *_PLAIN, bool))
_NAMES = frozenset((str,))


class _UnacceptableError(ValueError):
    """JSON, but not of the kind accepted here."""


def _no_fraction(_text: str) -> NoReturn:
    raise _UnacceptableError("a number is not a whole one")


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else MAX_INTEGER
    if abs(value) >= MAX_INTEGER:
        raise _UnacceptableError("a number is too large")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _UnacceptableError("a name occurs twice")
    return table


class _Rules:
    """What the scanner asks of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_no_duplicates)
    parse_float = staticmethod(_no_fraction)
    parse_int = staticmethod(_whole)
    parse_constant = staticmethod(_no_fraction)
    memo: dict[str, str] = {}  # noqa: RUF012 (part of the scanner's contract)


# For most refusals the scanner looks for its error class in the module `json`, which no boot has: CPython 3.11 then
# raises SystemError, later ones ImportError.
_NO_JSON_MODULE = (SystemError, ImportError)
_TOO_DEEP = f"not acceptable JSON: it is nested more than {MAX_DEPTH} deep"
_scan = make_scanner(_Rules)  # type: ignore[arg-type]  # typeshed describes the result, not the argument


def parse(data: bytes, what: str, cap: int, error: ErrorType) -> Any:
    """Parse one JSON value from at most `cap` bytes; raises `error` naming `what`."""
    if len(data) > cap:
        raise error(what, "", f"{len(data)} bytes are more than the {cap} allowed")
    try:
        text = data.decode("ascii" if data.isascii() else "utf-8").strip(_SPACE)
        value, end = _scan(text, 0)
    except _UnacceptableError as problem:
        raise error(what, "", f"not acceptable JSON: {problem}") from None
    except (ValueError, StopIteration, *_NO_JSON_MODULE):
        raise error(what, "", "not JSON") from None
    except RecursionError:
        raise error(what, "", _TOO_DEEP) from None
    if end != len(text):
        raise error(what, "", "more text after the end of the JSON value")
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(value):  # so few can hold no deeper nest
        raise error(what, "", _TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    """Say whether lists and tables are nested more than `MAX_DEPTH` deep, without recursion."""
    level = [value] if type(value) in _BOXES else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        inner = (box.values() if type(box) is dict else box for box in level)
        level = [item for items in inner for item in items if type(item) in _BOXES]
    return bool(level)


def serialise(value: object) -> bytes:
    """Write the one canonical form: ASCII, names sorted, no spaces."""
    text = "".join(_encode(value, 0))
    _demand_writable(value)
    return text.encode("ascii")


def serialise_around(table: dict[str, Any], name: str, rows: Iterable[str]) -> bytes:
    """Write the canonical form of a table that also has the list `name`, whose rows are in the canonical form already.

    A list that comes again and again need not be written anew each time.
    """
    before = serialise({key: value for key, value in table.items() if key < name})[1:-1]
    after = serialise({key: value for key, value in table.items() if key > name})[1:-1]
    own = f"{encode_basestring_ascii(name)}:[{','.join(rows)}]".encode("ascii")
    return b"{" + b",".join(filter(None, (before, own, after))) + b"}"


def _foreign(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no place in JSON")


_encode = make_encoder(None, _foreign, encode_basestring_ascii, None, ":", ",", True, False, True)


def _demand_writable(value: object) -> None:
    """Raise `TypeError` for what the encoder writes and no reader of ours takes: fractions, names that are no texts.

    It comes after the encoder, which does not survive a value that holds itself; so this walk ends.
    """
    level: list[Any] = [value]
    while level:
        if not _WRITABLE.issuperset(map(type, level)):
            _demand_subclasses(level)
        boxes = [item for item in level if type(item) in _BOXES]
        level = []
        for box in boxes:
            if type(box) is dict:
                if not _NAMES.issuperset(map(type, box)) and not all(isinstance(name, str) for name in box):
                    raise TypeError("a name in JSON is a text")
                level += box.values()
            else:
                level += box


def _demand_subclasses(items: list[Any]) -> None:
    """Raise `TypeError` unless each item is writable itself or of a class derived from a text or a number."""
    for kind in set(map(type, items)):
        if kind not in _BOXES and not issubclass(kind, _PLAIN):
            raise TypeError(f"{kind.__name__} has no place in JSON")


def to_base64(data: bytes) -> str:
    """Encode bytes for JSON (RFC 4648 §4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")
