# SPDX-License-Identifier: Apache-2.0
"""Reports of the initramfs on their way to the journal (docs/daemon.md §4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyquorum.daemon import boot_reports
from keyquorum.errors import MalformedError
from keyquorum.linux import boot_record
from keyquorum.model import journal_entry
from keyquorum.model.report import Report, Verdict

VALID = Verdict(index=1, name="disk-a", kind="disk", verdict="valid", seconds=0.25)
REFUSED = Verdict(index=2, name="tpm", kind="tpm", verdict="refused", reason="PCR 7 is other", hint="enrol anew")
OPENED = Report(
    command="unlock",
    device="/dev/vda2",
    volume="6b657971-756f-4d75-ad74-657374726f74",
    name="root",
    outcome="opened",
    exit_code=0,
    missing=0,
    verdicts=(VALID, REFUSED),
)
CLOSED = OPENED.with_(outcome="failed", exit_code=3, missing=1, name="swap", message="the quorum is not reached")


class Box:
    """A journal that remembers, and may refuse."""

    def __init__(self, *, takes: bool = True) -> None:
        self.entries: list[dict[str, str]] = []
        self.takes = takes

    def send(self, entry: dict[str, str]) -> bool:
        self.entries.append(entry)
        return self.takes


def tell(directory: Path, box: Box, ran: tuple[str, ...] = ()) -> int:
    return boot_reports.tell_journal(ran.__contains__, str(directory / "told"), str(directory), box.send)


def table() -> dict[str, Any]:
    made: dict[str, Any] = OPENED.to_json()
    return made


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    boot_record.keep_report(CLOSED, str(tmp_path))
    assert boot_reports.read("swap", str(tmp_path)) == CLOSED


def test_no_report_is_no_error(tmp_path: Path) -> None:
    assert boot_reports.read("root", str(tmp_path)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", None),
        ("holders", {}),
        ("holders", ["x"]),
        ("holders", [{"name": "x"}]),
        ("name", 5),
        ("name", "x" * 1001),
        ("message", None),
        ("exit_code", "0"),
        ("exit_code", True),
        ("missing", -1),
        ("missing", 1 << 31),
        ("missing", 0.5),
    ],
)
def test_a_report_of_another_shape_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(MalformedError) as refused:
        boot_reports.parse(json.dumps(table() | {field: value}).encode(), "report")
    assert field in refused.value.message or field == "holders"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        boot_reports.parse(data, "report")


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(MalformedError, match="larger"):
        boot_reports.read("root", str(tmp_path))


def test_text_that_would_move_a_cursor_is_made_harmless() -> None:
    data = json.dumps(table() | {"message": "\x1b[2J"}).encode()
    assert boot_reports.parse(data, "report").message == "?[2J"


def test_every_holder_and_the_outcome_are_told_once(tmp_path: Path) -> None:
    for report in (OPENED, CLOSED):
        boot_record.keep_report(report, str(tmp_path))
    box = Box()
    assert tell(tmp_path, box) == 2
    assert tell(tmp_path, box) == 0
    assert [entry["MESSAGE_ID"] for entry in box.entries] == [
        *(journal_entry.VERDICT_ID, journal_entry.VERDICT_ID, journal_entry.OPENED_ID),
        *(journal_entry.VERDICT_ID, journal_entry.VERDICT_ID, journal_entry.CLOSED_ID),
    ]
    assert box.entries[0]["KEYQUORUM_VOLUME"] == OPENED.volume
    assert (box.entries[1]["KEYQUORUM_HOLDER"], box.entries[1]["KEYQUORUM_VERDICT"]) == ("tpm", "refused")
    assert box.entries[2]["MESSAGE"] == "root is open, from 1 of 2 fragments"
    assert box.entries[5]["KEYQUORUM_OUTCOME"] == "failed"


def test_what_a_unit_did_it_told_itself(tmp_path: Path) -> None:
    boot_record.keep_report(OPENED, str(tmp_path))
    box = Box()
    assert tell(tmp_path, box, ran=("root",)) == 0
    assert box.entries == []


def test_a_journal_that_takes_nothing_is_tried_again(tmp_path: Path) -> None:
    boot_record.keep_report(OPENED, str(tmp_path))
    assert tell(tmp_path, Box(takes=False)) == 0
    assert tell(tmp_path, Box()) == 1


def test_one_bad_report_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot_record.keep_report(OPENED, str(tmp_path))
    (tmp_path / "a.json").write_bytes(b"{")
    assert tell(tmp_path, Box()) == 1
    assert "a.json: is not JSON" in capsys.readouterr().err


def test_without_a_directory_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert (
        boot_reports.tell_journal(lambda _name: False, str(tmp_path / "told"), str(tmp_path / "none"), Box().send) == 0
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((VALID,), True),
        ((VALID.with_(verdict="unavailable"), VALID.with_(verdict="silent")), True),
        ((REFUSED,), False),
        ((VALID.with_(verdict="unavailable"), REFUSED.with_(kind="pkcs11")), False),
        ((REFUSED.with_(kind="passphrase"),), True),
        ((REFUSED.with_(verdict="tampered"),), True),
    ],
)
def test_a_chip_that_refused_is_not_asked_by_the_clock(verdicts: tuple[Verdict, ...], expected: bool) -> None:
    assert boot_reports.worth_waiting(CLOSED.with_(verdicts=verdicts)) is expected


def test_without_a_report_it_is_worth_waiting() -> None:
    assert boot_reports.worth_waiting(None)


@pytest.mark.parametrize(
    ("kind", "verdict", "reason", "expected"),
    [
        ("tpm", "refused", "the PIN is wrong", True),
        ("pkcs11", "refused", 'the PIN of token "chip" (serial 0000000000000000) is wrong', True),
        ("pkcs11", "refused", 'the PIN of token "chip" (serial 0000000000000000) is locked', True),
        ("tpm", "refused", "PCR 7 differs", False),
        ("tpm", "unavailable", "the PIN is wrong", False),
        ("passphrase", "refused", "the PIN is wrong", False),
    ],
)
def test_a_wrong_pin_is_known_by_its_words(kind: str, verdict: str, reason: str, expected: bool) -> None:
    found = Verdict(index=1, name="x", kind=kind, verdict=verdict, reason=reason)
    assert boot_reports.pin_refused(CLOSED.with_(verdicts=(found,))) is expected
    assert not boot_reports.pin_refused(None)


@pytest.mark.parametrize("module", ["tpm_refusal", "pkcs11_token"])
def test_holders_still_use_these_words(module: str) -> None:
    source = (Path(boot_reports.__file__).parents[1] / "holders" / f"{module}.py").read_text()
    assert f'"{boot_reports._PIN_WORDS} ' in source
