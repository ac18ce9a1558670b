# SPDX-License-Identifier: Apache-2.0
"""What `keyquorum status` makes of the reports of boots, of which another version may have written some."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.cli import status
from keyquorum.daemon import boot_reports
from keyquorum.linux import boot_record
from keyquorum.model.report import Report

if TYPE_CHECKING:
    from pathlib import Path

UUID = "0e64fb5c-1a3c-4a5c-8f2d-6b1c7d1e5ab0"
GOOD = Report(
    command="unlock",
    device="/dev/vda2",
    volume=UUID,
    name="root",
    outcome="opened",
    exit_code=0,
    missing=0,
    verdicts=(),
)
BAD: dict[str, Any] = {
    "of another version": GOOD.to_json() | {"version": 2},
    "without holders": {name: value for name, value in GOOD.to_json().items() if name != "holders"},
    "with strange holders": GOOD.to_json() | {"holders": [{"name": 1}]},
    "a list": [],
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    real = boot_reports.read
    monkeypatch.setattr(boot_record, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(boot_reports, "read", lambda name: real(name, str(tmp_path)))
    return tmp_path


def test_the_report_of_the_volume(directory: Path) -> None:
    boot_record.keep_report(GOOD.with_(volume="other", name="other"), str(directory))
    boot_record.keep_report(GOOD, str(directory))
    assert status._last_unlock(UUID) == GOOD.to_json()


@pytest.mark.parametrize("name", BAD)
def test_one_that_cannot_be_read_is_passed_over(directory: Path, name: str) -> None:
    (directory / "a.json").write_text(json.dumps(BAD[name]))
    (directory / "b.json").write_text("[" * 100_000)
    assert status._last_unlock(UUID) is None


def test_no_boot_left_any(directory: Path) -> None:
    assert status._last_unlock(UUID) is None
    directory.rmdir()
    assert status._last_unlock(UUID) is None
