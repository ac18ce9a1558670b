# SPDX-License-Identifier: Apache-2.0
"""Puts the program's own help texts into docs/cli.md: `build/venv/bin/python packaging/refresh_help.py`.

A block that starts with `$ keyquorum … --help` gets what that command says. tests/house/test_cli_doc.py fails while
page and program differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs/cli.md"
BLOCK = re.compile(r"(?m)^```console\n\$ keyquorum(?P<words>[a-z -]*) --help\n(?P<text>(?:(?!```).*\n)*)```$")
COLUMNS = "80"


def real_help(words: list[str]) -> str:
    """Return what `keyquorum WORDS --help` prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "keyquorum.cli.main", *words, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "agent"), "COLUMNS": COLUMNS}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def refreshed(page: str) -> str:
    """Return the page with every help text as it is now."""

    def block(found: re.Match[str]) -> str:
        words = found["words"]
        return f"```console\n$ keyquorum{words} --help\n{real_help(words.split())}```"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
