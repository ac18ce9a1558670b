# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md says what the program says. (What the commands print as JSON: tests/devices/test_cli_outcomes.py.)"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keyquorum import errors
from keyquorum.cli.main import VERBS
from keyquorum.unlock import arguments

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/cli.md").read_text(encoding="utf-8")
TEXTS = dict(re.findall(r"(?ms)^```console\n\$ (keyquorum[a-z -]*? --help)\n(.*?)^```$", PAGE))


def real_help(words: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "keyquorum.cli.main", *words.split()[1:]]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "agent"), "COLUMNS": "80"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", TEXTS)
def test_every_help_text_is_the_programs_own(words: str) -> None:
    assert real_help(words) == TEXTS[words], "refresh the page: build/venv/bin/python packaging/refresh_help.py"


def test_every_verb_and_every_action_has_its_help_text() -> None:
    expected = {"keyquorum --help", *(f"keyquorum {verb} --help" for verb in VERBS)}
    for words in list(TEXTS):  # an action may have actions of its own
        actions = re.findall(r"(?m)^    ([a-z-]+)", TEXTS[words].partition("  ACTION\n")[2])
        expected |= {f"{words.removesuffix('--help')}{action} --help" for action in actions}
    assert len(expected) > 1 + len(VERBS)
    assert TEXTS.keys() == expected


def test_options_that_no_help_shows_are_on_the_page() -> None:
    hidden = {option for option in arguments._FLAGS if option not in arguments.UNLOCK_HELP}
    assert hidden == {"--boot", "--record"}
    assert all(f"| `{option}` |" in PAGE for option in hidden)


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = dict(re.findall(r"(?m)^\| (\d+) \| ([a-z ]+) \|", PAGE))
    assert codes.pop("0") == "done"
    assert codes.pop("130") == "interrupted"
    assert codes == {
        str(error.exit_code): name
        for error, name in (
            (errors.KeyquorumError, "failed"),
            (errors.UsageError, "usage"),
            (errors.QuorumNotReachedError, "quorum not reached"),
            (errors.TamperingError, "tampering refused"),
            (errors.TryAgainError, "try again later"),
        )
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version", 0),
        ("", 2),
        ("frobnicate", 2),
        ("enroll", 2),
        ("unlock", 2),
        ("unlock --json a b", 2),
        ("policy", 2),
    ],
)
def test_calls_that_do_nothing_end_with_the_documented_code(words: str, code: int) -> None:
    command = [sys.executable, "-m", "keyquorum.cli.main", *words.split()]
    done = subprocess.run(command, env={"PYTHONPATH": str(REPOSITORY / "agent")}, capture_output=True, check=False)
    assert done.returncode == code
    assert "--json" not in words or done.stdout == b""
