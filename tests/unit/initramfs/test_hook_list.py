# SPDX-License-Identifier: Apache-2.0
"""Lines that the hook takes apart at white space: none of them may be cut in a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyquorum.initramfs import hook_list, main
from keyquorum.settings import parse


def test_lines() -> None:
    assert hook_list.program("/lib/a.so") == "exec /lib/a.so"
    assert hook_list.file("/etc/a") == "file /etc/a /etc/a"
    assert hook_list.file("/usr/a", "/usr/b") == "file /usr/a /usr/b"
    assert hook_list.driver("vsock") == "module vsock"
    assert hook_list.note("two words") == "note two words"


@pytest.mark.parametrize("path", ["/etc/my keys/a", "/etc/a\tb", "/etc/a\u3000b"])
def test_what_would_be_cut_is_left_out_and_named(path: str) -> None:
    said = f"{path!r} is left out, for white space in its name"
    assert hook_list.program(path) == hook_list.file(path) == f"note {said}"
    assert hook_list.file(path, whose="eu of root") == f"note eu of root: {said}"


def test_settings_with_white_space_are_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    machine = tmp_path / "this machine.json"
    main._custodians([], parse(f"machine = {machine}"), str(tmp_path / "image"))
    lines = capsys.readouterr().out.splitlines()
    assert f"note {str(machine)!r} is left out, for white space in its name" in lines
    assert not [line for line in lines if line.startswith("file") and "machine" in line]
