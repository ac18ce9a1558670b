# SPDX-License-Identifier: Apache-2.0
"""Our JSON against the standard library's: what we write is read alike, what we accept means the same to both."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.model import strict_json

CAP = 1 << 20
INTEGERS = st.integers(-strict_json.MAX_INTEGER + 1, strict_json.MAX_INTEGER - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
PUNCTUATION = st.text(alphabet='{}[]:,"\\/ \t\n\r01-+.eEutrfalsn\x00\x1fé\ud800', max_size=30)


def parse(data: bytes, cap: int = CAP) -> Any:
    return strict_json.parse(data, "object", cap, TamperingError)


def refusal(data: bytes, cap: int = CAP) -> str:
    with pytest.raises(TamperingError) as caught:
        parse(data, cap)
    assert caught.value.what == "object"
    return caught.value.problem


@settings(deadline=None)
@given(VALUES)
def test_what_we_write_both_read_alike(value: Any) -> None:
    data = strict_json.serialise(value)
    assert json.loads(data) == value
    assert parse(data) == value
    assert data.isascii()


@settings(deadline=None)
@given(VALUES)
def test_the_canonical_form_is_the_libraries_compact_sorted_one(value: Any) -> None:
    assert strict_json.serialise(value) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_other_spellings_mean_the_same(value: Any, indent: int | str | None, ascii_only: bool) -> None:
    try:
        data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # half of a surrogate pair has no UTF-8
        return
    assert parse(b" \t\r\n" + data + b"\n") == value


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=40) | PUNCTUATION.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_what_we_accept_the_library_accepts_with_the_same_value(data: bytes) -> None:
    try:
        value = parse(data)
    except TamperingError:
        return
    assert json.loads(data.decode()) == value


@settings(deadline=None, max_examples=300)
@given(VALUES, st.data())
def test_damage_is_refused_or_read_as_the_library_reads_it(value: Any, draw: st.DataObject) -> None:
    data = bytearray(strict_json.serialise(value))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    try:
        found = parse(bytes(data))
    except TamperingError:
        return
    assert json.loads(data.decode()) == found


REFUSED = {
    "empty": (b"", "not JSON"),
    "only space": (b" \n", "not JSON"),
    "word": (b"quorum", "not JSON"),
    "cut in a table": (b'{"a":', "not JSON"),
    "cut in a text": (b'{"a', "not JSON"),
    "cut after a name": (b'{"a"', "not JSON"),
    "no quotes": (b"{a:1}", "not JSON"),
    "comma at the end": (b'{"a":1,}', "not JSON"),
    "list with a comma at the end": (b"[1,]", "not JSON"),
    "name twice": (b'{"a":1,"a":1}', "a name occurs twice"),
    "name twice, spelt in two ways": (b'{"a":1,"\\u0061":2}', "a name occurs twice"),
    "name twice, deep": (b'[{"b":{"a":1,"a":null}}]', "a name occurs twice"),
    "fraction": (b"1.0", "a number is not a whole one"),
    "exponent": (b"1e2", "a number is not a whole one"),
    "NaN": (b"NaN", "a number is not a whole one"),
    "infinity": (b"[-Infinity]", "a number is not a whole one"),
    "large number": (b"9223372036854775808", "a number is too large"),
    "large negative number": (b"-9223372036854775808", "a number is too large"),
    "number of many digits": (b"1" * 5000, "a number is too large"),
    "number with a zero in front": (b"01", "more text after the end"),
    "second value": (b"{} {}", "more text after the end"),
    "zero byte after the end": (b"{}\x00", "more text after the end"),
    "control character in a text": (b'"a\nb"', "not JSON"),
    "unknown escape": (b'"\\x41"', "not JSON"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "not UTF-8": (b'"\xff"', "not JSON"),
    "half of a surrogate pair as UTF-8": (b'"\xed\xa0\x80"', "not JSON"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "not JSON"),
    "comment": (b"{}//", "more text after the end"),
    "other quotes": (b"{'a':1}", "not JSON"),
    "other space": ("\u00a0{}".encode(), "not JSON"),
    "deep": (b"[" * 33 + b"]" * 33, "is nested more than 32 deep"),
    "deeper than any stack": (b"[" * 100_000 + b"]" * 100_000, "is nested more than 32 deep"),
    "tables, deeper than any stack": (b'{"a":' * 100_000, "is nested more than 32 deep"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, problem = REFUSED[name]
    assert problem in refusal(data)


def test_depth_at_the_bound_is_read() -> None:
    assert parse(b"[" * 32 + b"]" * 32) == json.loads(b"[" * 32 + b"]" * 32)
    assert parse(b'{"a":' * 32 + b"1" + b"}" * 32) == json.loads(b'{"a":' * 32 + b"1" + b"}" * 32)
    assert "is nested more than 32 deep" in refusal(b'{"a":' * 33 + b"1" + b"}" * 33)


def test_the_cap_counts_bytes_and_is_judged_first() -> None:
    assert parse(b'"\xc3\xa9"', 4) == "é"
    assert refusal(b'"\xc3\xa9"', 3) == "4 bytes are more than the 3 allowed"
    assert refusal(b"\xff" * 11, 10) == "11 bytes are more than the 10 allowed"


def test_the_caller_chooses_the_error() -> None:
    with pytest.raises(MalformedError, match=r"^policy: not JSON$"):
        strict_json.parse(b"", "policy", 10, MalformedError)


def test_refusals_show_nothing_of_the_object() -> None:
    for data, _ in REFUSED.values():
        assert refusal(data).isprintable()


def test_refusing_needs_no_module_that_a_boot_image_lacks() -> None:
    """The scanner looks for its error class in `json`; an initramfs has no such module."""
    script = """
import sys

class NoJson:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "json":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoJson())
sys.path += sys.argv[2].split(":")
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
for data in eval(sys.argv[1]):
    try:
        strict_json.parse(data, "object", 1 << 20, TamperingError)
    except TamperingError as error:
        assert error.problem.isprintable()
    else:
        raise SystemExit(f"{data!r} was accepted")
assert "json" not in sys.modules
"""
    data = [data for data, _ in REFUSED.values() if len(data) < 10_000]
    paths = ":".join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-ISc", script, repr(data), paths], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("value", [1.5, b"x", {"a": object()}, [{1, 2}]])
def test_what_has_no_place_in_json_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="has no place in JSON"):
        strict_json.serialise(value)


def test_a_tuple_is_written_as_a_list_and_names_are_sorted() -> None:
    assert strict_json.serialise({"b": (1, 2), "a": []}) == b'{"a":[],"b":[1,2]}'


@pytest.mark.parametrize("value", [[{"deep": {"er": [float("nan")]}}], ({"a": (0.0,)},)])
def test_a_fraction_is_found_wherever_it_is(value: object) -> None:
    with pytest.raises(TypeError, match="float has no place in JSON"):
        strict_json.serialise(value)


@pytest.mark.parametrize("value", [{1: "a"}, {None: 1}, [{"a": {True: 1}}]])
def test_a_name_that_is_no_text_is_not_written(value: object) -> None:
    with pytest.raises(TypeError):
        strict_json.serialise(value)


def test_a_value_that_holds_itself_is_not_written() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RecursionError):
        strict_json.serialise(value)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=5), st.text(max_size=3), st.lists(VALUES, max_size=3))
def test_a_list_that_was_written_before_makes_no_difference(table: dict[str, Any], name: str, rows: list[Any]) -> None:
    whole = strict_json.serialise({**table, name: rows})
    table.pop(name, None)
    assert strict_json.serialise_around(table, name, (strict_json.serialise(row).decode() for row in rows)) == whole
