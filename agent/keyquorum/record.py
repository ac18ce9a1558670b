# SPDX-License-Identifier: Apache-2.0
"""Frozen records for modules that a boot imports.

`dataclasses` imports `inspect` and compiles code for each class: three times the start of a bare interpreter
(docs/decisions/0003-boot-imports.md). This base class gives what the boot needs of it: fields by keyword,
defaults, immutability, equality and a repr. Type checkers see a dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201 (type checkers see the real one)
        """Do nothing at run time."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class Record:
    """A value with named fields that never change. Subclass it and annotate the fields."""

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 (inspect costs a boot too much)
        own = tuple(name for name in annotations if not name.startswith("_"))
        cls._fields = tuple(dict.fromkeys(cls._fields + own))

    def __init__(self, **values: Any) -> None:
        state = self.__dict__
        for name in self._fields:
            if name in values:
                state[name] = values.pop(name)
            elif not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs {name}")
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(values))}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({inside})"

    def with_(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self)(**({name: getattr(self, name) for name in self._fields} | changes))
