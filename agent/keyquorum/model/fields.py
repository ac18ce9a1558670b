# SPDX-License-Identifier: Apache-2.0
"""Reading the fields of a parsed table: each field exactly once, typed and bounded, nothing unknown left over."""

from __future__ import annotations

import binascii

from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self

    from keyquorum.model.strict_json import ErrorType

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_HEX = frozenset("0123456789abcdef")
_DEFAULT_MAX = 256
_MAX_SHOWN = 40  # characters of foreign text in an error


class Fields:
    """One table of an object. `what` names the object, `path` the table within it; both appear in every error.

    Every reader takes its field out, so that `finish` can name what nobody asked for. `error` is `TamperingError`
    for what comes from disks and holders, `MalformedError` for what the caller gave.
    """

    def __init__(self, value: Any, what: str, error: ErrorType, path: str = "") -> None:
        self.what, self.path, self._error = what, path, error
        if not isinstance(value, dict):
            raise error(what, path, "must be a table")
        self._rest: dict[str, Any] = dict(value)

    @classmethod
    def read(cls, data: bytes, what: str, most: int, error: ErrorType) -> Self:
        """Parse strict JSON of at most `most` bytes, whose outermost value must be a table; raises `error`."""
        return cls(strict_json.parse(data, what, most, error), what, error)

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise the error for field `name`."""
        raise self._error(self.what, self._where(name), problem)

    def _where(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def has(self, name: str) -> bool:
        """Say whether a field is present and not null."""
        return self._rest.get(name) is not None

    def take(self, name: str) -> Any:
        """Take a field of any type."""
        if name not in self._rest:
            self.fail(name, "is missing")
        return self._rest.pop(name)

    def text(self, name: str, *, longest: int = _DEFAULT_MAX, default: str | None = None) -> str:
        """Take a string of printable characters; it may be shown on a terminal."""
        if default is not None and not self.has(name):
            self._rest.pop(name, None)
            return default
        value = self.take(name)
        if not isinstance(value, str) or not value:
            self.fail(name, "must be a non-empty text")
        if len(value) > longest:
            self.fail(name, f"is longer than {longest} characters")
        if not value.isprintable():
            self.fail(name, "holds characters that do not print")
        return value

    def name(self, name: str, *, longest: int = 32) -> str:
        """Take a name: lower-case letters, digits, dots, dashes and underscores."""
        value = self.text(name, longest=longest)
        if not _NAME.issuperset(value):
            self.fail(name, f"{value!r} may hold only a-z, 0-9, dot, dash and underscore")
        return value

    def choice(self, name: str, choices: tuple[str, ...], *, default: str | None = None) -> str:
        """Take one of some fixed words."""
        value = self.text(name, default=default)
        if value not in choices:
            self.fail(name, f"{value!r} is none of {', '.join(choices)}")
        return value

    def integer(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        """Take a whole number from `low` to `high`."""
        if default is not None and not self.has(name):
            self._rest.pop(name, None)
            return default
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(name, "must be a whole number")
        if not low <= value <= high:
            self.fail(name, f"{value} is not from {low} to {high}")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Take true or false."""
        value = self._rest.pop(name, default)
        if not isinstance(value, bool):
            self.fail(name, "must be true or false")
        return value

    def version(self, known: int) -> None:
        """Take the version and refuse every other than `known`."""
        value = self.take("version")
        if value != known or isinstance(value, bool):
            self.fail("version", f"{repr(value)[:_MAX_SHOWN]} is not known here (this program knows {known})")

    def data(self, name: str, *, size: int | None = None, longest: int = 4096) -> bytes:
        """Take bytes in base64, of exactly `size` or at most `longest`."""
        value = self.take(name)
        if not isinstance(value, str) or len(value) > longest * 2:
            self.fail(name, "must be base64")
        try:
            found = binascii.a2b_base64(value, strict_mode=True)
        except (binascii.Error, ValueError):
            self.fail(name, "is not base64")
        if strict_json.to_base64(found) != value:
            self.fail(name, "is not canonical base64")
        if size is not None and len(found) != size:
            self.fail(name, f"has {len(found)} bytes, not {size}")
        if len(found) > longest:
            self.fail(name, f"has {len(found)} bytes, more than {longest}")
        return found

    def hexadecimal(self, name: str, *sizes: int) -> bytes:
        """Take bytes in lower-case hexadecimal, of one of some sizes."""
        value = self.take(name)
        if not isinstance(value, str) or len(value) % 2 or len(value) // 2 not in sizes or not _HEX.issuperset(value):
            self.fail(name, f"must be {' or '.join(str(2 * size) for size in sizes)} hexadecimal digits")
        return bytes.fromhex(value)

    def table(self, name: str) -> Fields:
        """Take a table."""
        return Fields(self.take(name), self.what, self._error, self._where(name))

    def raw_table(self, name: str) -> dict[str, Any]:
        """Take a table whose fields another reader knows."""
        value = self.take(name)
        if not isinstance(value, dict):
            self.fail(name, "must be a table")
        return value

    def rows(self, name: str, *, most: int = 255, default: bool = False) -> list[Any]:
        """Take a list of at most `most` items; an absent one is empty if `default`."""
        if default and not self.has(name):
            self._rest.pop(name, None)
            return []
        value = self.take(name)
        if not isinstance(value, list):
            self.fail(name, "must be a list")
        if len(value) > most:
            self.fail(name, f"has {len(value)} items, more than {most}")
        return value

    def names(self) -> list[str]:
        """Return the names of the fields not taken yet."""
        return list(self._rest)

    def row(self, name: str, index: int, value: Any) -> Fields:
        """Read an item of a list as a table."""
        return Fields(value, self.what, self._error, self._where(f"{name}[{index}]"))

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        for name in self._rest:
            self.fail(name[:_MAX_SHOWN] if name.isprintable() else ascii(name[:_MAX_SHOWN]), "is not known here")
