# SPDX-License-Identifier: Apache-2.0
"""Which processes have a question open with systemd's password agents (systemd's PASSWORD_AGENTS.md)."""

from __future__ import annotations

import os

DIRECTORY = "/run/systemd/ask-password"
_PREFIX = "ask."
_MAX_FILE = 4096


def asking(directory: str = DIRECTORY) -> frozenset[int]:
    """Return the process ids of those who ask."""
    try:
        names = [name for name in os.listdir(directory) if name.startswith(_PREFIX)]
    except OSError:  # nobody has asked yet in this boot
        return frozenset()
    return frozenset(pid for name in names if (pid := _asker(os.path.join(directory, name))))


def _asker(path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_FILE).splitlines()
    except OSError:  # answered meanwhile
        return 0
    for line in lines:
        name, _, value = line.partition("=")
        if name == "PID" and value.isascii() and value.isdigit():
            return int(value)
    return 0
