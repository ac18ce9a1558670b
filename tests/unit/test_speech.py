# SPDX-License-Identifier: Apache-2.0
"""Words to people: streams, form, colour only where it is wanted, and nothing that a disk made up reaches a terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from keyquorum import speech
from keyquorum.errors import KeyquorumError, TamperingError
from keyquorum.model import report
from keyquorum.model.report import Verdict

VERDICT = Verdict(index=1, name="vault", kind="disk", verdict=report.REFUSED, reason="no", hint="try", seconds=0.1234)


def test_results_go_to_output_and_words_to_errors(capsys: pytest.CaptureFixture[str]) -> None:
    speech.say("result")
    speech.note("step")
    speech.warn("careful")
    speech.fail(KeyquorumError("it failed", "try again"))
    speech.verdict(VERDICT)
    said = capsys.readouterr()
    assert said.out == "result\n"
    assert said.err.splitlines() == [
        "keyquorum: step",
        "keyquorum: warning: careful",
        "keyquorum: it failed",
        "keyquorum:   try again",
        "keyquorum:   vault (disk): refused in 0.12 s: no (try)",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "  vault (disk): refused in 0.12 s: no (try)"),
        ({"hint": ""}, "  vault (disk): refused in 0.12 s: no"),
        ({"hint": "", "reason": "", "seconds": 0.0}, "  vault (disk): refused"),
        ({"hint": "", "reason": "", "seconds": 0.0004}, "  vault (disk): refused"),
        ({"verdict": report.NOT_NEEDED, "hint": "", "reason": "", "seconds": 0.0}, "  vault (disk): not needed"),
    ],
)
def test_the_line_about_a_holder(changes: dict[str, object], line: str) -> None:
    assert speech.verdict_line(VERDICT.with_(**changes)) == line
    assert speech.verdict_line(VERDICT.with_(**changes), 8) == line.replace("vault", "vault   ")


def on_a_terminal(environment: dict[str, str]) -> bytes:
    """Speak with standard error on a real terminal; return what reached it."""
    child, terminal = pty.fork()
    if not child:
        os.environ.clear()
        os.environ.update(environment)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (the terminal, in a process that ends here)
        speech.fail(KeyquorumError("it failed"))
        speech.verdict(VERDICT)
        speech.note("step")
        os._exit(0)
    heard = b""
    try:
        while piece := os.read(terminal, 4096):
            heard += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return heard


def test_colour_on_terminals_only_and_not_where_it_is_unwanted() -> None:
    coloured = on_a_terminal({})
    assert b"keyquorum: \x1b[31mit failed\x1b[0m" in coloured
    assert b"keyquorum: step" in coloured
    assert b"\x1b" not in on_a_terminal({"NO_COLOR": ""})


@pytest.mark.parametrize(
    "foreign", ["\x1b[2J\x1b[H", "a\r\nkeyquorum: vault is fine", "\x9b31m", "\u202eabc", "\x07", "\ud800", "\x00"]
)
def test_what_a_disk_says_cannot_steer_a_terminal(foreign: str, capsys: pytest.CaptureFixture[str]) -> None:
    speech.fail(TamperingError("LUKS2 header", "cipher", f"is {foreign}", f"look {foreign}"))
    speech.warn(foreign)
    speech.note(foreign)
    speech.verdict(VERDICT.with_(reason=foreign))
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("keyquorum: ") for line in lines[:-1])
