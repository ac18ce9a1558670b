# SPDX-License-Identifier: Apache-2.0
"""The text of a recovery sheet: what comes back, and that no mistake in typing goes unnoticed."""

from __future__ import annotations

import base64
import hashlib
import itertools
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import MalformedError
from keyquorum.model import sheet_text
from keyquorum.model.sheet_text import LINE_SIZE, LINES, SYMBOLS
from keyquorum.secret import Identity, Secret

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
VOLUME, PLACE = b"\x12\x34", b"\xab\xcd"


def sheet(raw: bytes, volume: bytes = VOLUME, place: bytes = PLACE) -> tuple[str, ...]:
    with Identity.from_view(raw) as identity:
        return sheet_text.encode(identity, volume, place)


def read(*typed: str | bytes) -> tuple[bytes, bytes, bytes]:
    filled = 0
    with Secret(SYMBOLS) as symbols:
        for answer in typed:
            with Secret.from_view(answer.encode() if isinstance(answer, str) else answer) as given_text:
                filled = sheet_text.take_lines(given_text, symbols, filled)
        assert filled == SYMBOLS
        found = sheet_text.decode(symbols)
    with found.identity as identity:
        return found.volume_tag, found.place_tag, bytes(identity.view)


def problem_of(*typed: str | bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        read(*typed)
    assert caught.value.what == "sheet"
    return caught.value


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=2, max_size=2), st.binary(min_size=2, max_size=2))
def test_round_trip(raw: bytes, volume: bytes, place: bytes) -> None:
    lines = sheet(raw, volume, place)
    assert read(*lines) == read("\n".join(lines)) == read("".join(lines)) == (volume, place, raw)


def test_shape() -> None:
    lines = sheet(secrets.token_bytes(32))
    assert len(lines) == LINES == 5
    for line in lines:
        assert [len(group) for group in line.split("-")] == [5, 5, 5]
        assert set(line) <= set(ALPHABET + "-")
    assert lines[0][0] == "1"


def test_the_specified_bytes() -> None:
    """docs/holders-people.md §3, computed another way."""
    raw = bytes(range(32))
    lines = [line.replace("-", "") for line in sheet(raw)]
    checksum = hashlib.sha256(b"keyquorum/v1/sheet\0\x01" + VOLUME + PLACE + raw).digest()[:4]
    rfc4648 = base64.b32encode(VOLUME + PLACE + raw + checksum).decode()
    data = "1" + rfc4648.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ALPHABET))
    assert "".join(line[:13] for line in lines) == data
    for number, line in enumerate(lines, 1):
        values = [number, *(ALPHABET.index(symbol) for symbol in line)]
        for root in (2, 4):  # a code word is a multiple of (x - 2)(x - 4)
            value = 0
            for coefficient in values:
                value = multiply(value, root) ^ coefficient
            assert value == 0


def multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(5):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(8, 4, -1):
        product ^= (0b100101 << bit - 5) * (product >> bit & 1)
    return product


@pytest.mark.parametrize(
    "change",
    [
        str.lower,
        lambda text: text.replace("-", ""),
        lambda text: text.replace("-", " "),
        lambda text: f"  {text}\t\r",
        " ".join,
        lambda text: text.replace("0", "O").replace("1", "I"),
        lambda text: text.replace("0", "o").replace("1", "l"),
        lambda text: text.replace("1", "L").lower(),
        lambda text: text.replace("1", "i"),
    ],
)
def test_ways_to_type_it(change: object) -> None:
    raw = bytes(32) + b""
    lines = [change(line) for line in sheet(raw)]  # type: ignore[operator]  # a function of a text
    assert read(*lines)[2] == read("\r\n".join(lines) + "\n")[2] == raw


def test_every_single_wrong_character_is_found_in_its_line() -> None:
    lines = list(sheet(secrets.token_bytes(32)))
    for number, line in enumerate(lines, 1):
        for at, right in enumerate(line):
            if right == "-":
                continue
            for wrong in ALPHABET:
                if wrong == right:
                    continue
                typed = [*lines[: number - 1], line[:at] + wrong + line[at + 1 :], *lines[number:]]
                assert problem_of(*typed).where == f"line {number}"


def test_every_swap_of_two_characters_is_found() -> None:
    lines = [line.replace("-", "") for line in sheet(secrets.token_bytes(32))]
    swaps = 0
    for number, line in enumerate(lines, 1):
        for first, second in itertools.combinations(range(LINE_SIZE), 2):
            if line[first] == line[second]:
                continue
            swapped = list(line)
            swapped[first], swapped[second] = swapped[second], swapped[first]
            typed = [*lines[: number - 1], "".join(swapped), *lines[number:]]
            assert problem_of(*typed).where == f"line {number}"
            swaps += 1
    assert swaps > 300


@given(st.binary(min_size=32, max_size=32), st.data())
@settings(deadline=None)
def test_any_two_wrong_characters_of_a_line_are_found(raw: bytes, data: st.DataObject) -> None:
    lines = [line.replace("-", "") for line in sheet(raw)]
    number = data.draw(st.integers(0, LINES - 1))
    places = data.draw(st.lists(st.integers(0, LINE_SIZE - 1), min_size=1, max_size=2, unique=True))
    changed = list(lines[number])
    for place in places:
        changed[place] = data.draw(st.sampled_from([symbol for symbol in ALPHABET if symbol != changed[place]]))
    lines[number] = "".join(changed)
    assert problem_of(*lines).where == f"line {number + 1}"


def test_lines_in_a_wrong_order_are_named() -> None:
    lines = list(sheet(secrets.token_bytes(32)))
    for first, second in itertools.combinations(range(LINES), 2):
        typed = lines.copy()
        typed[first], typed[second] = typed[second], typed[first]
        problem = problem_of(*typed)
        assert (problem.where, problem.problem) == (f"line {first + 1}", f"is line {second + 1} of a sheet")


def test_lines_of_two_sheets_do_not_mix() -> None:
    one, other = sheet(secrets.token_bytes(32)), sheet(secrets.token_bytes(32))
    for number in range(LINES):
        mixed = [*one[:number], other[number], *one[number + 1 :]]
        if number == 0 and mixed[0] == one[0]:
            continue
        assert problem_of(*mixed).problem == "its lines do not belong together"


@pytest.mark.parametrize(
    ("typed", "where", "problem"),
    [
        ("", "line 1", "has 0 characters, not 15"),
        ("  -- \n\n", "line 1", "has 0 characters, not 15"),
        ("1", "line 1", "has 1 characters, not 15"),
        ("0" * 14, "line 1", "has 14 characters, not 15"),
        ("0" * 14 + "\n0", "line 1", "has 14 characters, not 15"),
        ("0U0", "line 1", "has a character at place 2 that no sheet has"),
        ("0u0", "line 1", "has a character at place 2 that no sheet has"),
        ("00000-0000!", "line 1", "has a character at place 10 that no sheet has"),
        ("ä", "line 1", "has a character at place 1 that no sheet has"),
        (b"\x00", "line 1", "has a character at place 1 that no sheet has"),
        (b"\xff", "line 1", "has a character at place 1 that no sheet has"),
        ("0" * 15, "line 1", "does not match its check letters, the last two"),
    ],
)
def test_mistakes_have_words(typed: str | bytes, where: str, problem: str) -> None:
    found = problem_of(typed)
    assert (found.where, found.problem) == (where, problem)
    assert "keyboard layout" in found.hint


def test_a_missing_or_doubled_character_is_found_where_it_is() -> None:
    lines = list(sheet(secrets.token_bytes(32)))
    short = "\n".join([*lines[:2], lines[2][:-1], *lines[3:]])
    assert problem_of(short).message == "sheet: line 3: has 14 characters, not 15"
    long = "\n".join([*lines[:2], lines[2] + "7", *lines[3:]])
    assert problem_of(long).message == "sheet: line 3: has 16 characters, not 15"
    assert problem_of(lines[0], lines[1] + "0").message == "sheet: line 2: has 16 characters, not 15"
    assert problem_of("".join(lines)[:-1]).message == "sheet: line 5: has 14 characters, not 15"


def test_more_than_a_sheet() -> None:
    assert problem_of("".join(sheet(bytes(32))) + "0").problem == "more was typed than its 5 lines"


def test_another_version() -> None:
    first, *rest = sheet(bytes(32))
    values = [2, *(ALPHABET.index(symbol) for symbol in first.replace("-", "")[1:13])]
    check = sheet_text._check(1, values)
    later = "".join(ALPHABET[value] for value in (*values, *check))
    assert problem_of(later, *rest).message == "sheet: version: 2 is not known here (this program knows 1)"


def test_a_line_that_failed_can_be_typed_again() -> None:
    lines = sheet(bytes(range(32)))
    with Secret(SYMBOLS) as symbols:
        filled = sheet_text.take_lines(Secret.from_view("".join(lines[:2]).encode()), symbols, 0)
        with pytest.raises(MalformedError):
            sheet_text.take_lines(Secret.from_view(lines[3].encode()), symbols, filled)
        filled = sheet_text.take_lines(Secret.from_view("".join(lines[2:]).encode()), symbols, filled)
        assert filled == SYMBOLS
        assert bytes(sheet_text.decode(symbols).identity.view) == bytes(range(32))


@given(st.binary(max_size=200))
def test_nothing_but_the_one_error(typed: bytes) -> None:
    with Secret(SYMBOLS) as symbols, Secret.from_view(typed) as given_bytes, pytest.raises(MalformedError):
        sheet_text.take_lines(given_bytes, symbols, 0)


def test_tags_differ() -> None:
    tags = {sheet_text.volume_tag(f"volume {number}") for number in range(200)}
    tags |= {sheet_text.place_tag(bytes(16), f"name{number}") for number in range(200)}
    tags |= {sheet_text.place_tag(bytes([number]) * 16, "name") for number in range(1, 200)}
    assert len(tags) > 590
