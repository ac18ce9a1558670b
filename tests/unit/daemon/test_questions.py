# SPDX-License-Identifier: Apache-2.0
"""Who asks through systemd's password agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.daemon.questions import asking

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = """[Ask]
PID=465
Socket=/run/systemd/ask-password//sck.7
Message=Please enter passphrase for disk data:
Id=cryptsetup:/dev/vdb
"""


def test_every_open_question_has_its_asker(tmp_path: Path) -> None:
    (tmp_path / "ask.1").write_text(QUESTION)
    (tmp_path / "ask.2").write_text(QUESTION.replace("465", "7"))
    (tmp_path / "sck.7").write_text("PID=8\n")
    (tmp_path / "tmp.3").write_text("PID=9\n")
    assert asking(str(tmp_path)) == {465, 7}


def test_what_is_no_question_asks_nothing(tmp_path: Path) -> None:
    (tmp_path / "ask.1").write_text("[Ask]\nPID=\n")
    (tmp_path / "ask.2").write_bytes(b"\xff\xfePID=x")
    (tmp_path / "ask.3").mkdir()
    (tmp_path / "ask.4").symlink_to("nowhere")
    (tmp_path / "ask.5").write_text("x" * 5000 + "\nPID=4\n")
    assert asking(str(tmp_path)) == frozenset()


def test_nobody_has_asked_yet(tmp_path: Path) -> None:
    assert asking(str(tmp_path / "none")) == frozenset()
