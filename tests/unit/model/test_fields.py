# SPDX-License-Identifier: Apache-2.0
"""The reader of fields: what each kind takes, and that every refusal names object and field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[Fields], object]


def fields(**values: Any) -> Fields:
    return Fields(values, "object", TamperingError, "table")


ACCEPTED: dict[str, tuple[Reader, Any, object]] = {
    "text": (lambda f: f.text("x"), "Grüße, world", "Grüße, world"),
    "text of the greatest length": (lambda f: f.text("x", longest=3), "abc", "abc"),
    "text with a default, given": (lambda f: f.text("x", default="d"), "given", "given"),
    "text with a default, null": (lambda f: f.text("x", default="d"), None, "d"),
    "name": (lambda f: f.name("x"), "a-z_0.9", "a-z_0.9"),
    "choice": (lambda f: f.choice("x", ("a", "b")), "b", "b"),
    "choice with a default, null": (lambda f: f.choice("x", ("a", "b"), default="a"), None, "a"),
    "lowest integer": (lambda f: f.integer("x", -1, 5), -1, -1),
    "highest integer": (lambda f: f.integer("x", -1, 5), 5, 5),
    "integer with a default, null": (lambda f: f.integer("x", 1, 5, default=3), None, 3),
    "integer with a default, given": (lambda f: f.integer("x", 1, 5, default=3), 4, 4),
    "flag": (lambda f: f.flag("x"), True, True),
    "version": (lambda f: f.version(1), None, None),
    "data": (lambda f: f.data("x"), "AAEC", b"\x00\x01\x02"),
    "data of a given size": (lambda f: f.data("x", size=1), "/w==", b"\xff"),
    "no data": (lambda f: f.data("x"), "", b""),
    "data of the greatest length": (lambda f: f.data("x", longest=3), "AAEC", b"\x00\x01\x02"),
    "hexadecimal": (lambda f: f.hexadecimal("x", 2), "00ff", b"\x00\xff"),
    "raw table": (lambda f: f.raw_table("x"), {"a": [1]}, {"a": [1]}),
    "rows": (lambda f: f.rows("x", most=2), [1, None], [1, None]),
    "rows, null with a default": (lambda f: f.rows("x", default=True), None, []),
    "anything": (lambda f: f.take("x"), [None], [None]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    read, value, expected = ACCEPTED[name]
    found = fields(version=1) if name == "version" else fields(x=value)
    assert read(found) == expected
    assert found.names() == []
    found.finish()


def test_absent_fields_with_a_default() -> None:
    empty = fields()
    assert (empty.text("x", default="d"), empty.choice("x", ("a",), default="a")) == ("d", "a")
    assert (empty.integer("x", 0, 9, default=7), empty.flag("x"), empty.flag("x", default=True)) == (7, False, True)
    assert empty.rows("x", default=True) == []
    assert not empty.has("x")
    assert not fields(x=None).has("x")
    assert fields(x=False).has("x")


REFUSED: dict[str, tuple[Reader, Any, str]] = {
    "empty text": (lambda f: f.text("x"), "", "must be a non-empty text"),
    "number for a text": (lambda f: f.text("x"), 5, "must be a non-empty text"),
    "null for a text": (lambda f: f.text("x"), None, "must be a non-empty text"),
    "long text": (lambda f: f.text("x", longest=3), "abcd", "is longer than 3 characters"),
    "line break": (lambda f: f.text("x"), "a\nb", "holds characters that do not print"),
    "escape sequence": (lambda f: f.text("x"), "\x1b[2J", "holds characters that do not print"),
    "writing direction": (lambda f: f.text("x"), "a\u202eb", "holds characters that do not print"),
    "half of a surrogate pair": (lambda f: f.text("x"), "\ud800", "holds characters that do not print"),
    "upper case in a name": (lambda f: f.name("x"), "Disk", "'Disk' may hold only a-z, 0-9, dot, dash and underscore"),
    "slash in a name": (lambda f: f.name("x"), "../x", "'../x' may hold only a-z, 0-9, dot, dash and underscore"),
    "long name": (lambda f: f.name("x"), "a" * 33, "is longer than 32 characters"),
    "no choice": (lambda f: f.choice("x", ("a", "b")), "c", "'c' is none of a, b"),
    "number for a choice": (lambda f: f.choice("x", ("a", "b")), 1, "must be a non-empty text"),
    "too low": (lambda f: f.integer("x", 1, 5), 0, "0 is not from 1 to 5"),
    "too high": (lambda f: f.integer("x", 1, 5), 6, "6 is not from 1 to 5"),
    "text for an integer": (lambda f: f.integer("x", 1, 5), "1", "must be a whole number"),
    "true for an integer": (lambda f: f.integer("x", 0, 5), True, "must be a whole number"),
    "fraction for an integer": (lambda f: f.integer("x", 0, 5), 1.0, "must be a whole number"),
    "one for a flag": (lambda f: f.flag("x"), 1, "must be true or false"),
    "null for a flag": (lambda f: f.flag("x"), None, "must be true or false"),
    "number for data": (lambda f: f.data("x"), 5, "must be base64"),
    "endless data": (lambda f: f.data("x", longest=8), "A" * 17, "must be base64"),
    "no base64": (lambda f: f.data("x"), "A", "is not base64"),
    "other alphabet": (lambda f: f.data("x"), "-_==", "is not base64"),
    "not ASCII": (lambda f: f.data("x"), "Aé==", "is not base64"),
    "line break in base64": (lambda f: f.data("x"), "AAEC\n", "is not base64"),
    "missing padding": (lambda f: f.data("x"), "AAE", "is not base64"),
    "bits beyond the end": (lambda f: f.data("x"), "AB==", "is not canonical base64"),
    "data of another size": (lambda f: f.data("x", size=2), "AAEC", "has 3 bytes, not 2"),
    "long data": (lambda f: f.data("x", longest=2), "AAEC", "has 3 bytes, more than 2"),
    "short hexadecimal": (lambda f: f.hexadecimal("x", 2), "00f", "must be 4 hexadecimal digits"),
    "upper-case hexadecimal": (lambda f: f.hexadecimal("x", 2), "00FF", "must be 4 hexadecimal digits"),
    "space in hexadecimal": (lambda f: f.hexadecimal("x", 2), "0 f ", "must be 4 hexadecimal digits"),
    "other digits": (lambda f: f.hexadecimal("x", 1), "٣٣", "must be 2 hexadecimal digits"),
    "list for hexadecimal": (lambda f: f.hexadecimal("x", 1), ["0", "0"], "must be 2 hexadecimal digits"),
    "list for a table": (lambda f: f.table("x"), [], "must be a table"),
    "list for a raw table": (lambda f: f.raw_table("x"), [], "must be a table"),
    "table for rows": (lambda f: f.rows("x"), {}, "must be a list"),
    "text for rows": (lambda f: f.rows("x"), "abc", "must be a list"),
    "many rows": (lambda f: f.rows("x", most=2), [1, 2, 3], "has 3 items, more than 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    read, value, problem = REFUSED[name]
    with pytest.raises(TamperingError) as caught:
        read(fields(x=value))
    assert str(caught.value) == f"object: table.x: {problem}"
    assert (caught.value.what, caught.value.where, caught.value.problem) == ("object", "table.x", problem)


@pytest.mark.parametrize(
    "read",
    [
        lambda f: f.take("x"),
        lambda f: f.text("x"),
        lambda f: f.name("x"),
        lambda f: f.choice("x", ("a",)),
        lambda f: f.integer("x", 0, 1),
        lambda f: f.data("x"),
        lambda f: f.hexadecimal("x", 1),
        lambda f: f.table("x"),
        lambda f: f.raw_table("x"),
        lambda f: f.rows("x"),
    ],
)
def test_missing(read: Reader) -> None:
    with pytest.raises(TamperingError, match=r"^object: table\.x: is missing$"):
        read(fields())


@pytest.mark.parametrize(
    ("version", "shown"), [(2, "2"), (0, "0"), (True, "True"), ("1", "'1'"), (None, "None"), ([1], "[1]")]
)
def test_other_versions(version: object, shown: str) -> None:
    with pytest.raises(TamperingError) as caught:
        fields(version=version).version(1)
    assert str(caught.value) == f"object: table.version: {shown} is not known here (this program knows 1)"


def test_a_version_that_is_a_novel_is_not_printed_whole() -> None:
    with pytest.raises(TamperingError) as caught:
        fields(version="x" * 20_000).version(1)
    assert len(str(caught.value)) < 200


def test_nobody_takes_a_field_twice() -> None:
    found = fields(x=1)
    found.take("x")
    with pytest.raises(TamperingError, match="is missing"):
        found.take("x")


def test_leftovers_are_named_and_fit_for_a_terminal() -> None:
    found = fields(x=1, extra=2)
    found.take("x")
    with pytest.raises(TamperingError, match=r"^object: table\.extra: is not known here$"):
        found.finish()
    for name in ("\x1b[2J" + "y" * 100, "a\nb", "\ud800"):
        with pytest.raises(TamperingError) as caught:
            Fields({name: 1}, "object", TamperingError).finish()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 250


def test_paths_of_inner_tables_and_rows() -> None:
    inner = fields(a={"b": {"c": 1}}).table("a").table("b")
    with pytest.raises(TamperingError, match=r"^object: table\.a\.b\.c: must be a non-empty text$"):
        inner.text("c")
    outer = Fields({"list": [5, {"x": 1}]}, "object", TamperingError)
    rows = outer.rows("list")
    with pytest.raises(TamperingError, match=r"^object: list\[0\]: must be a table$"):
        outer.row("list", 0, rows[0])
    with pytest.raises(TamperingError, match=r"^object: list\[1\]\.x: is not known here$"):
        outer.row("list", 1, rows[1]).finish()


def test_what_is_no_table_at_all() -> None:
    values: tuple[object, ...] = (None, [], "x", 5)
    for value in values:
        with pytest.raises(MalformedError, match=r"^file: must be a table$"):
            Fields(value, "file", MalformedError)


def test_the_callers_table_is_left_as_it_was() -> None:
    table = {"x": 1}
    Fields(table, "object", TamperingError).take("x")
    assert table == {"x": 1}
