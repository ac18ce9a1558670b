# SPDX-License-Identifier: Apache-2.0
"""Makes the manual pages: `python packaging/man.py DIRECTORY` (or `make man`) writes man5/*.5 and man8/*.8 there.

Sources are packaging/man/NAME.SECTION.md. A line in them of two braces around a directive is replaced by what the
directive names: `verb WORDS` and `options WORDS` of docs/cli.md, `settings` of the settings table, `section PAGE N` of
another page, `text PAGE N` for the same without its heading. So nothing is written down twice.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = REPOSITORY / "packaging/man"
sys.path[0:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "packaging")]

import command_line  # noqa: E402 (needs the path above)
import debian_texts  # noqa: E402
import roff  # noqa: E402
from keyquorum.settings import TABLE  # noqa: E402

if TYPE_CHECKING:
    from command_line import Option, Verb

_DIRECTIVE = re.compile(r"(?m)^\{\{(?P<name>[a-z]+)(?: (?P<words>[^}]*))?\}\}$")
_MANUALS = {"5": "File Formats Manual", "8": "System Manager's Manual"}
_FLAG_IN_TEXT = re.compile(r"(?<![\w`-])--[a-z-]+")


def pages() -> dict[str, str]:
    """Return every manual page by its file name, such as keyquorum.8."""
    return {source.name.removesuffix(".md"): _page(source) for source in sorted(SOURCES.glob("*.md"))}


def write(directory: Path) -> list[Path]:
    """Write the pages below a directory of manuals; return their paths."""
    written = []
    for name, text in pages().items():
        path = directory / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _page(source: Path) -> str:
    title, section, _ = source.name.rsplit(".", 2)
    text = _DIRECTIVE.sub(_replace, source.read_text(encoding="utf-8"))
    _, _, body = text.partition(f"# {title}({section})\n")
    version, time = debian_texts.newest_release()
    date = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")
    return roff.page(body, roff.Heading(title, section, date, f"keyquorum {version}", _MANUALS[section]))


def _replace(directive: re.Match[str]) -> str:
    name, words = directive["name"], directive["words"] or ""
    if name == "settings":
        return "\n".join(_settings())
    if name in {"section", "text"}:
        heading, _, text = _section(*words.split(" ", 1)).partition("\n")
        return text if name == "text" else f"{heading}\n{text}"
    if name in {"verb", "options"}:
        verb = command_line.verbs()[words]
        return "\n".join(_verb(verb) if name == "verb" else _options(verb))
    raise SystemExit(f"packaging/man: {{{{{name}}}}} is no directive")


def _verb(verb: Verb) -> list[str]:
    operands = [term for term, _ in verb.positionals if term != "ACTION"]
    lines = [f"### {' '.join(['keyquorum', verb.words, *operands])}", ""]
    for kind, text in verb.blocks:
        lines += [_marked(text), ""] if kind == "text" else ["```", text, "```", ""]
    return lines + _options(verb)


def _options(verb: Verb) -> list[str]:
    lines: list[str] = []
    for term, text in verb.positionals:
        if term != "ACTION":
            lines += [f"*{term}*", f":   {_marked(text)}", ""]
    for option in verb.options:
        if option.names != ("-h", "--help"):
            lines += [_term(option), f":   {_marked(option.text)}", ""]
    return lines


def _term(option: Option) -> str:
    value = f" *{option.value}*" if option.value else ""
    return ", ".join(f"**{name}**{value}" for name in option.names)


def _marked(text: str) -> str:
    """Mark the options that a help text speaks of."""
    return text if "`" in text else _FLAG_IN_TEXT.sub(r"`\g<0>`", text)


def _settings() -> list[str]:
    lines: list[str] = []
    for row in TABLE:
        default = f"`{row.default}`" if row.default else "empty"
        lines += [f"**{row.name}**", f":   {row.help[0].upper()}{row.help[1:]}. Default: {default}.", ""]
    return lines


def _section(page: str, number: str) -> str:
    """Return one section of a page, with its heading; numbers stay where the page refers to them as §."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = re.search(rf"(?ms)^## (?:§{number}|{number}\.) .*?(?=^## |\Z)", text)
    if found is None:
        raise SystemExit(f"{page} has no section {number}")
    return re.sub(rf"\A## {number}\. ", "## ", found[0])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: man.py DIRECTORY")
    for path in write(Path(sys.argv[1])):
        print(f"man: {path}")
