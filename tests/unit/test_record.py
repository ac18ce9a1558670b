# SPDX-License-Identifier: Apache-2.0
"""Records against the frozen data classes whose place they take at boot."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from keyquorum.record import Record


class Point(Record):
    """A record with a default and something private."""

    x: int
    y: int = 2
    _hidden: int = 5


class Named(Point):
    """A record that adds a field to another, and gives an inherited one a default."""

    name: str
    x: int = 1


class Other(Record):
    """Looks like `Point`."""

    x: int
    y: int = 2


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What `Point` is to type checkers."""

    x: int
    y: int = 2


def test_fields_and_defaults() -> None:
    point = Point(x=1)
    assert (point.x, point.y, point._fields) == (1, 2, ("x", "y"))
    assert Point(x=1, y=3).y == 3


def test_inheritance() -> None:
    named = Named(name="n")
    assert (named.x, named.y, named.name, named._fields) == (1, 2, "n", ("x", "y", "name"))


@pytest.mark.parametrize(("x", "y"), [(1, 2), (3, 4), (1, 3)])
def test_equality_hash_and_repr_are_a_data_classes(x: int, y: int) -> None:
    point, reference = Point(x=x, y=y), Reference(x=x, y=y)
    assert repr(point) == repr(reference).replace("Reference", "Point")
    assert (point == Point(x=1)) == (reference == Reference(x=1))
    assert (hash(point) == hash(Point(x=1))) == (hash(reference) == hash(Reference(x=1)))


def test_records_of_other_classes_are_not_equal() -> None:
    assert Point(x=1) != Other(x=1)
    assert Point(x=1) != Named(name="n")
    assert Point(x=1) != (1, 2)
    assert len({Point(x=1), Point(x=1), Other(x=1)}) == 2


def test_a_field_is_missing_or_unknown() -> None:
    with pytest.raises(TypeError, match=r"^Point needs x$"):
        Point(y=1)  # type: ignore[call-arg]  # the point of the test
    with pytest.raises(TypeError, match=r"^Point has no field a, z$"):
        Point(x=1, z=1, a=2)  # type: ignore[call-arg]  # the point of the test
    with pytest.raises(TypeError, match=r"^Point has no field _hidden$"):
        Point(x=1, _hidden=2)
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[call-arg]  # by keyword only


def test_nothing_changes() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match=r"^Point is frozen: x$"):
        point.x = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises(AttributeError, match=r"^Point is frozen: z$"):
        point.z = 2
    with pytest.raises(AttributeError, match=r"^Point is frozen: x$"):
        del point.x
    assert point == Point(x=1)


def test_a_copy_with_changes() -> None:
    point = Point(x=1)
    assert (point.with_(y=5), point) == (Point(x=1, y=5), Point(x=1))
    assert type(Named(name="n").with_(x=3)) is Named
    with pytest.raises(TypeError, match="has no field q"):
        point.with_(q=1)
