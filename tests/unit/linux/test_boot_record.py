# SPDX-License-Identifier: Apache-2.0
"""What a boot leaves under /run: a report, whole or not at all, that can be read afterwards."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from keyquorum.linux import boot_record
from keyquorum.model.report import VALID, Report, Verdict

if TYPE_CHECKING:
    from pathlib import Path

REPORT = Report(
    command="unlock",
    device="/dev/vda2",
    volume="v",
    name="root",
    outcome="opened",
    exit_code=0,
    missing=0,
    verdicts=(Verdict(index=1, name="a", kind="disk", verdict=VALID, seconds=0.0126),),
)


def test_the_report(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    boot_record.keep_report(REPORT, str(directory))
    found = json.loads((directory / "root.json").read_text())
    assert found == REPORT.to_json() | {"holders": [REPORT.verdicts[0].to_json()]}
    assert found["holders"][0]["milliseconds"] == 13
    boot_record.keep_report(REPORT.with_(outcome="failed"), str(directory))
    assert json.loads((directory / "root.json").read_text())["outcome"] == "failed"
    assert os.listdir(directory) == ["root.json"]


def test_what_was_left_half_written_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"root.json.{os.getpid()}").write_bytes(b"half")
    boot_record.keep_report(REPORT, str(tmp_path))
    assert os.listdir(tmp_path) == ["root.json"]


def test_a_report_without_a_name_is_not_kept(tmp_path: Path) -> None:
    """An unlock that failed before it knew the volume has nothing that anybody would look for."""
    boot_record.keep_report(REPORT.with_(name=""), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    boot_record.keep_report(REPORT, str(tmp_path / "file"))
