# SPDX-License-Identifier: Apache-2.0
"""What docs/cli.md says of the command line, as data: man pages and shell completion are made from it.

The page and not the program is read, so that building needs nothing but the standard library; a test keeps both equal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs/cli.md"
_BLOCK = re.compile(r"(?ms)^```console\n\$ keyquorum ?(?P<words>[a-z -]*?) ?--help\n(?P<text>.*?)^```$")
_ENTRY = re.compile(r"^ {2}(?P<term>\S(?:.*?\S)?)(?: {2,}(?P<text>.*))?$")
_LISTS = {"positional arguments:", "options:"}


class Option(NamedTuple):
    """`names` are the spellings, `value` what follows it ("" for a flag)."""

    names: tuple[str, ...]
    value: str
    text: str


class Verb(NamedTuple):
    """One help text: `words` after keyquorum; `blocks` are ("text" or "example", lines joined) in order."""

    words: str
    usage: str
    blocks: tuple[tuple[str, str], ...]
    positionals: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]


def verbs() -> dict[str, Verb]:
    """Return every help text of the page by its words; "" is keyquorum's own."""
    found = {
        block["words"]: _verb(block["words"], block["text"])
        for block in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))
    }
    if not found:
        raise SystemExit(f"{PAGE} has no help texts: run packaging/refresh_help.py")
    known = {name: option for option in found["unlock"].options for name in option.names}
    for words, verb in found.items():  # check says "options as in unlock" and names them in its usage only
        if words and not verb.options:
            options = tuple(known[name] for name in re.findall(r"\[(--[a-z-]+)", verb.usage) if name in known)
            found[words] = verb._replace(options=options, positionals=verb.positionals or found["unlock"].positionals)
    return found


def _verb(words: str, text: str) -> Verb:
    usage, *blocks = (block.split("\n") for block in text.strip("\n").split("\n\n"))
    told: list[tuple[str, str]] = []
    entries: list[tuple[str, str]] = []
    for lines in blocks:
        if lines[0] in _LISTS:
            entries += _entries(lines[1:])
        elif all(line.startswith("  ") for line in lines):
            entries += _entries(lines)
        elif len(lines) > 1 and lines[0].endswith(":") and lines[1].startswith("  "):
            told += [("text", lines[0]), ("example", "\n".join(line[2:] for line in lines[1:]))]
        else:
            told.append(("text", " ".join(lines)))
    options = tuple(_option(term, text) for term, text in entries if term.startswith("-"))
    return Verb(
        words=words,
        usage=" ".join(line.strip() for line in usage).removeprefix("usage: "),
        blocks=tuple(told),
        positionals=tuple(entry for entry in entries if not entry[0].startswith("-")),
        options=options,
    )


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    """Read lines of "  TERM   what it is", the latter also on the lines below."""
    found: list[tuple[str, str]] = []
    for line in lines:
        entry = _ENTRY.match(line) if not line.startswith("   ") else None
        if entry is not None:
            found.append((entry["term"], entry["text"] or ""))
        elif found:
            term, text = found.pop()
            found.append((term, f"{text} {line.strip()}".strip()))
    return found


def _option(term: str, text: str) -> Option:
    """Read "--policy FILE" or "--yes, -y"."""
    names: list[str] = []
    value = ""
    for spelling in term.split(", "):
        name, _, value = spelling.partition(" ")
        names.append(name)
    return Option(names=tuple(names), value=value, text=text)
