# SPDX-License-Identifier: Apache-2.0
"""JSON as keyquorum accepts and writes it: capped, not deep, no name twice, no fractions, nothing after the end.

The module `json` imports `re` and `enum`, which costs a boot twice the start of a bare interpreter. Its scanner is
written in C and needs neither, so it is used directly (docs/decisions/0003-boot-imports.md).
"""

from __future__ import annotations

import binascii
from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from keyquorum.errors import MalformedError, TamperingError

    ErrorType = type[MalformedError | TamperingError]

MAX_INTEGER = 1 << 63
MAX_DEPTH = 32  # far more than any object of ours has; every later walk through a value is safe from exhaustion
_SPACE = " \t\n\r"


class _UnacceptableError(ValueError):
    """JSON, but not of the kind accepted here."""


def _no_fraction(_text: str) -> NoReturn:
    raise _UnacceptableError("a number is not a whole one")


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= MAX_INTEGER:
        raise _UnacceptableError("a number is too large")
    return int(text)


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
    if _is_deep(value):
        raise error(what, "", _TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    """Say whether lists and tables are nested more than `MAX_DEPTH` deep, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [item for item in level if isinstance(item, (list, dict))]
        if not inner:
            return False
        level = [item for box in inner for item in (box.values() if isinstance(box, dict) else box)]
    return True


def serialise(value: object) -> bytes:
    """Write the one canonical form: ASCII, names sorted, no spaces."""
    pieces: list[str] = []
    _write(value, pieces)
    return "".join(pieces).encode("ascii")


def _write(value: object, out: list[str]) -> None:
    if value is None or value is True or value is False:
        out.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        out.append(encode_basestring_ascii(value))
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, dict):
        for index, name in enumerate(sorted(value)):
            out.append(("," if index else "{") + encode_basestring_ascii(name) + ":")
            _write(value[name], out)
        out.append("}" if value else "{}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            out.append("," if index else "[")
            _write(item, out)
        out.append("]" if value else "[]")
    else:
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def to_base64(data: bytes) -> str:
    """Encode bytes for JSON (RFC 4648 §4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")
