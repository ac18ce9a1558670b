# SPDX-License-Identifier: Apache-2.0
"""Who hears what of an unlock."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from keyquorum.linux import boot_record, journal
from keyquorum.model.report import Report, Verdict
from keyquorum.unlock import telling

if TYPE_CHECKING:
    from pathlib import Path

VERDICT = Verdict(index=1, name="disk-a", kind="disk", verdict="valid", seconds=0.25)
OPENED = Report(
    command="unlock",
    device="/dev/vdb",
    volume="u-u-i-d",
    name="data",
    outcome="opened",
    exit_code=0,
    missing=0,
    verdicts=(VERDICT,),
)
CLOSED = OPENED.with_(outcome="failed", exit_code=3, missing=1, message="the quorum is not reached", hint="plug it in")


def told(listener: telling.Person, report: Report) -> None:
    listener.begin(report.with_(verdicts=()))
    listener.verdict(VERDICT)
    listener.outcome(report)


def test_a_person_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    told(telling.choose(boot=False), CLOSED)
    assert capsys.readouterr().err.splitlines() == [
        "keyquorum:   disk-a (disk): valid in 0.25 s",
        "keyquorum: data stays closed: the quorum is not reached",
        "keyquorum:   plug it in",
    ]


def test_a_boot_is_told_the_same_on_its_console(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(telling.choose(boot=True), telling.Boot)
    told(telling.Boot(), OPENED)
    assert capsys.readouterr().err.splitlines()[-1] == "keyquorum: data is open, from 1 of 1 fragments"


def test_the_journal_gets_fields_and_standard_error_stays_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "socket")
    send = journal.send
    monkeypatch.setattr(journal, "send", lambda fields: send(fields, path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        told(telling.Journal(), CLOSED)
        first, second = listener.recv(9999), listener.recv(9999)
    assert b"KEYQUORUM_VOLUME=u-u-i-d\n" in first
    assert b"MESSAGE=disk-a (disk): valid in 0.25 s\n" in first
    assert b"MESSAGE=data stays closed: the quorum is not reached\n" in second
    assert b"KEYQUORUM_HINT=plug it in\n" in second
    assert capsys.readouterr().err == ""


def test_what_the_journal_does_not_take_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = journal.send
    monkeypatch.setattr(journal, "send", lambda fields: send(fields, str(tmp_path / "none")))
    told(telling.Journal(), CLOSED)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_an_outcome_may_come_before_any_volume_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = journal.send
    monkeypatch.setattr(journal, "send", lambda fields: send(fields, str(tmp_path / "none")))
    telling.Journal().verdict(VERDICT)
    telling.Journal().outcome(CLOSED)
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {"log": [], "console": []}
    monkeypatch.setattr(boot_record, "to_kernel_log", lines["log"].append)
    monkeypatch.setattr(boot_record, "to_console", lines["console"].append)
    return lines


def test_whoever_lingers_hears_custodians_once_each(heard: dict[str, list[str]]) -> None:
    told = Verdict(index=2, name="eu", kind="custodian", verdict="waiting", reason="waits for approval of request 7")
    listener = telling.Lingering()
    for verdict in (
        told,
        told,
        told.with_(reason="waits for approval of request 8"),
        told.with_(verdict="unavailable", reason="not ready"),
        told.with_(verdict="not asked", reason=""),
        told.with_(kind="disk", verdict="unavailable"),
    ):
        listener.verdict(verdict)
    assert [line.rpartition(" ")[2] for line in heard["console"]] == ["7", "8"]
    assert len(heard["log"]) == 3


def test_what_is_wrong_about_an_answer_that_counts_is_on_the_console(heard: dict[str, list[str]]) -> None:
    """Roots for tests, above all: whoever stands before the machine shall know by what it opened."""
    told = Verdict(index=2, name="eu", kind="enclave", verdict="valid", reason="proven by TEST ROOTS")
    listener = telling.Lingering()
    for verdict in (told, told, told.with_(reason="", index=3)):
        listener.verdict(verdict)
    assert [line for line in heard["console"] if "TEST ROOTS" not in line] == []
    assert (len(heard["console"]), len(heard["log"])) == (1, 2)


def test_a_console_that_is_not_there_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(boot_record, "_CONSOLE", str(tmp_path / "none"))
    boot_record.to_console("hello")
    (tmp_path / "console").touch()
    monkeypatch.setattr(boot_record, "_CONSOLE", str(tmp_path / "console"))
    boot_record.to_console("hello")
    assert (tmp_path / "console").read_bytes() == b"\r\nkeyquorum: hello\r\n"
