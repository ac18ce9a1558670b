# SPDX-License-Identifier: Apache-2.0
"""The lines that `keyquorum-boot-image` prints and the initramfs hook carries out, taken apart at white space.

`exec SOURCE` copies a program with its libraries, `file SOURCE TARGET` a file, `module NAME` adds a kernel module,
`note TEXT` is for the person who has the image made.
"""

from __future__ import annotations


def program(path: str) -> str:
    """Return the line for a program or a library."""
    return _unless_cut(path, f"exec {path}")


def file(path: str, target: str = "", *, whose: str = "") -> str:
    """Return the line for a file, which is put where it is found or at `target`; `whose` is named if it cannot be."""
    return _unless_cut(path, f"file {path} {target or path}", whose)


def driver(name: str) -> str:
    """Return the line for a kernel module."""
    return f"module {name}"


def note(text: str) -> str:
    """Return the line for a remark."""
    return f"note {text}"


def _unless_cut(path: str, line: str, whose: str = "") -> str:
    """Return a note in the place of a line whose path the hook would cut: half a path may be another file's."""
    if any(character.isspace() for character in path):
        return note(f"{whose}{': ' if whose else ''}{path!r} is left out, for white space in its name")
    return line
