# SPDX-License-Identifier: Apache-2.0
"""The fields that docs/daemon.md §4 promises."""

from __future__ import annotations

import os
import re

import pytest

from keyquorum.model import journal_entry
from keyquorum.model.report import Report, Verdict

PAGE = os.path.join(os.path.dirname(__file__), "../../../docs/daemon.md")
VERDICT = Verdict(index=2, name="tpm", kind="tpm", verdict="refused", reason="PCR 7", hint="enrol", seconds=0.1234)
REPORT = Report(
    command="unlock",
    device="/dev/vdb",
    volume="u-u-i-d",
    name="data",
    outcome="failed",
    exit_code=3,
    missing=1,
    verdicts=(VERDICT,),
    hint="plug it in",
)


def test_a_verdict() -> None:
    assert journal_entry.of_verdict(REPORT, VERDICT, "the line") == {
        "MESSAGE": "the line",
        "MESSAGE_ID": "90c63ed146214f55b7750ebdb3d2843b",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "keyquorum",
        "KEYQUORUM_VOLUME": "u-u-i-d",
        "KEYQUORUM_NAME": "data",
        "KEYQUORUM_DEVICE": "/dev/vdb",
        "KEYQUORUM_HOLDER": "tpm",
        "KEYQUORUM_KIND": "tpm",
        "KEYQUORUM_INDEX": "2",
        "KEYQUORUM_VERDICT": "refused",
        "KEYQUORUM_REASON": "PCR 7",
        "KEYQUORUM_HINT": "enrol",
        "KEYQUORUM_MILLISECONDS": "123",
    }


@pytest.mark.parametrize(
    ("verdict", "priority"),
    [
        *(("valid", "6"), ("not needed", "6"), ("not asked", "6"), ("unavailable", "4"), ("refused", "4")),
        *(("silent", "4"), ("tampered", "3")),
    ],
)
def test_what_matters_more_has_the_lower_priority(verdict: str, priority: str) -> None:
    assert journal_entry.of_verdict(REPORT, VERDICT.with_(verdict=verdict), "x")["PRIORITY"] == priority


@pytest.mark.parametrize(
    ("outcome", "code", "message_id", "priority"),
    [
        ("opened", 0, journal_entry.OPENED_ID, "5"),
        ("already open", 0, journal_entry.OPENED_ID, "5"),
        ("handed out", 0, journal_entry.HANDED_OUT_ID, "5"),
        ("failed", 3, journal_entry.CLOSED_ID, "3"),
        ("failed", 4, journal_entry.CLOSED_ID, "3"),
    ],
)
def test_an_outcome(outcome: str, code: int, message_id: str, priority: str) -> None:
    entry = journal_entry.of_outcome(REPORT.with_(outcome=outcome, exit_code=code), "the line")
    assert (entry["MESSAGE_ID"], entry["PRIORITY"], entry["KEYQUORUM_OUTCOME"]) == (message_id, priority, outcome)
    assert (entry["KEYQUORUM_EXIT_CODE"], entry["KEYQUORUM_MISSING"]) == (str(code), "1")
    assert entry["KEYQUORUM_HINT"] == "plug it in"


def test_the_page_has_every_field_and_every_id() -> None:
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    section = page[page.index("## 4.") : page.index("## 5.")]
    entries = (
        journal_entry.of_verdict(REPORT, VERDICT, "x")
        | journal_entry.of_outcome(REPORT, "x")
        | journal_entry.of_event(journal_entry.RETRY_ID, "data", "x")
    )
    assert set(entries) == set(
        re.findall(r"`(MESSAGE|MESSAGE_ID|PRIORITY|SYSLOG_IDENTIFIER|KEYQUORUM_[A-Z_]+)`", section)
    )
    ids = {value for name, value in vars(journal_entry).items() if name.endswith("_ID")}
    assert ids == set(re.findall(r"`([0-9a-f]{32})`", section))
    assert len(ids) == 6
