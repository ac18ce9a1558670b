# SPDX-License-Identifier: Apache-2.0
"""The sheet holder: what is printed is what opens, typed or scanned; other sheets are told apart."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devices.holder_tasks import SUBJECT, Given, identity, open_task, seal_task
from keyquorum.errors import RefusedError, TamperingError, UnavailableError
from keyquorum.holders import load, sheet_print
from keyquorum.model.holder_options import SheetOptions
from keyquorum.secret import Identity

HOLDER = load("sheet")


class Printed:
    """A sheet as a person has it in hands."""

    def __init__(self, kept: Identity, **changes: Any) -> None:
        shown: list[str] = []
        self.where = HOLDER.seal(seal_task(SheetOptions(), Given(), kept, shown=shown, **changes))
        (self.text,) = shown
        self.lines = [line.encode() for line in re.findall(r"^  line \d    (\S+)$", self.text, re.MULTILINE)]


def opens(printed: Printed, kept: Identity, answers: Given, **changes: Any) -> bool:
    with HOLDER.open(open_task(printed.where, answers, **changes)).identity as found:
        return found.equals(kept)


def test_line_by_line() -> None:
    kept = identity()
    printed, answers = Printed(kept), Given()
    answers.answers = [*printed.lines]
    assert HOLDER.needs_person(printed.where)
    assert opens(printed, kept, answers)
    assert answers.asked == [
        "sheet second, line 1 of 5 (or all lines)",
        "sheet second, line 2 of 5",
        "sheet second, line 3 of 5",
        "sheet second, line 4 of 5",
        "sheet second, line 5 of 5",
    ]


@pytest.mark.parametrize("joint", [b"", b" ", b"\n", b"\r\n"])
def test_all_at_once_or_in_two_parts(joint: bytes) -> None:
    kept = identity()
    printed = Printed(kept)
    assert opens(printed, kept, Given([joint.join(printed.lines)]))
    assert opens(printed, kept, Given([joint.join(printed.lines)], stored=True))
    assert opens(printed, kept, Given([joint.join(printed.lines[:3]).lower(), joint.join(printed.lines[3:])]))


def test_only_the_wrong_line_is_typed_again() -> None:
    kept = identity()
    printed = Printed(kept)
    first, second, third, *rest = printed.lines
    answers = Given([first, second, third[:-1] + (b"0" if third[-1:] != b"0" else b"1"), third, *rest])
    assert opens(printed, kept, answers)
    assert answers.asked[3] == (
        "sheet: line 3: does not match its check letters, the last two; sheet second, line 3 of 5"
    )


def test_three_mistakes_are_enough() -> None:
    printed = Printed(identity())
    answers = Given([printed.lines[0], b"wrong", b"0" * 15, printed.lines[2], printed.lines[1]])
    with pytest.raises(RefusedError, match=r"^sheet: line 2: is line 3 of a sheet$") as caught:
        HOLDER.open(open_task(printed.where, answers))
    assert "keyboard layout" in caught.value.hint
    assert len(answers.asked) == 4


def test_a_stored_sheet_with_a_mistake_is_not_asked_for_again() -> None:
    printed = Printed(identity())
    for stored, words in (
        (b"nonsense", "sheet: line 1: has 8 characters, not 15"),
        (b"\n".join(printed.lines[:4]), "the stored answer for sheet second has 4 of 5 lines"),
    ):
        answers = Given([stored] * 5, stored=True)
        with pytest.raises(RefusedError, match=words):
            HOLDER.open(open_task(printed.where, answers))
        assert len(answers.asked) == 1


def test_nobody_types() -> None:
    printed = Printed(identity())
    with pytest.raises(UnavailableError, match=r"^nothing was typed$"):
        HOLDER.open(open_task(printed.where, Given([printed.lines[0]])))


def test_sheets_of_other_places_are_told_apart() -> None:
    kept = identity()
    right = Printed(kept)
    for changes, words in (
        ({"volume": "0" * 36}, "^this sheet belongs to another volume$"),
        ({"name": "other"}, "^this sheet belongs to this volume, but to another holder or an earlier enrolment$"),
        ({"set_id": bytes(16)}, "^this sheet belongs to this volume, but to another holder or an earlier enrolment$"),
        ({}, "^this sheet was replaced by a later one$"),
    ):
        foreign = Printed(identity(), **changes)
        with pytest.raises(RefusedError, match=words) as caught:
            HOLDER.open(open_task(right.where, Given([b"".join(foreign.lines)])))
        assert SUBJECT.volume in caught.value.hint
        assert not caught.value.tampered


def test_the_epoch_is_not_bound() -> None:
    kept = identity()
    printed = Printed(kept)
    assert opens(printed, kept, Given([b"".join(printed.lines)]), epoch=9, index=7)


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"check": "00"}, "must be 16 hexadecimal digits"), ({"version": 9}, "is not known"), ({"x": 1}, "is not known")],
)
def test_what_the_set_says_is_read_strictly(change: dict[str, object], problem: str) -> None:
    printed, answers = Printed(identity()), Given()
    with pytest.raises(TamperingError, match=problem):
        HOLDER.open(open_task(printed.where | change, answers))
    assert answers.asked == []


def test_an_altered_check_value_opens_nothing() -> None:
    printed = Printed(identity())
    with pytest.raises(RefusedError, match="replaced by a later one"):
        HOLDER.open(open_task(printed.where | {"check": "0" * 16}, Given([b"".join(printed.lines)])))


def test_what_is_printed() -> None:
    text = Printed(identity()).text
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        f"volume    {SUBJECT.volume}",
        "holder    second (fragment 2 of the policy)",
        "type the five lines",
        "keyquorum recover DEVICE",
        "Whoever has this sheet has one of the fragments",
    ):
        assert words in text
    assert re.search(r"^  printed   \d{4}-\d\d-\d\d \d\d:\d\d UTC$", text, re.MULTILINE)
    assert re.search(r"^  host      \S+$", text, re.MULTILINE)


def test_a_hostile_host_name_cannot_steer_the_printer() -> None:
    text = sheet_print.render_text(SUBJECT, identity(), "host\x1b[2J\n" + "x" * 200, "2026-01-01 00:00 UTC")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def _scan(image: Path) -> str:
    done = subprocess.run(["zbarimg", "--quiet", "--raw", image], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_printed_code_can_be_scanned(tmp_path: Path) -> None:
    """The half blocks of the text, drawn as an image and read by zbar, open the fragment."""
    kept = identity()
    printed = Printed(kept)
    rows: list[list[bool]] = []
    drawn = printed.text.split("reads:\n")[1].splitlines()
    width = max(map(len, drawn)) + 4
    for line in drawn:
        cells = line.ljust(width)
        rows += [[c in "▀█" for c in cells], [c in "▄█" for c in cells]]
    image = tmp_path / "code.pgm"
    scale = 4
    pixels = b"".join(bytes(0 if dark else 255 for dark in row for _ in range(scale)) * scale for row in rows)
    image.write_bytes(b"P5 %d %d 255\n" % (width * scale, len(rows) * scale) + pixels)
    scanned = _scan(image)
    assert len(scanned) == 75
    assert opens(printed, kept, Given([scanned.encode()]))


def test_the_proof_of_an_enrolment_need_not_type_it() -> None:
    kept, known = identity(), Given(stored=True)
    shown: list[str] = []
    where = HOLDER.seal(seal_task(SheetOptions(), known, kept, shown=shown))
    with HOLDER.open(open_task(where, Given([known.offered[SUBJECT.name]], stored=True))).identity as opened:
        assert opened.equals(kept)


def test_nothing_to_erase() -> None:
    kept = identity()
    printed = Printed(kept)
    HOLDER.erase(open_task(printed.where, Given()))
    HOLDER.retire(open_task(printed.where, Given()))
    assert opens(printed, kept, Given([b"".join(printed.lines)]))
