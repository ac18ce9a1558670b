# SPDX-License-Identifier: Apache-2.0
"""Turns the Markdown that our pages use into a manual page for man(7), with tbl(1) for tables.

Known: headings, paragraphs, lists, definition lists (a line, below it `:   ` and text), fenced and indented code,
tables, `code`, **bold**, *emphasis*, [links](address). Everything else is text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_INLINE = re.compile(
    r"`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*|\[([^\]]+)\]\([^)]+\)|((?<![\w/.@-])[\w@.-]+\([1-8]\))"
)
_HYPHEN = re.compile(r"(?<![\w])-|-(?![\w])")
_WIDEST = 24  # columns of text that a table's column other than the last may take
_LONGEST = 40  # a word of that length in such a column, or
_MANY = 4  # so many columns, and the table is shown as a definition list


class Heading(NamedTuple):
    """What stands in a manual page's head and foot lines."""

    title: str
    section: str
    date: str
    product: str
    manual: str


def page(source: str, heading: Heading) -> str:
    """Return the manual page of a Markdown text without its first heading."""
    body = _Page()
    body.blocks(source.split("\n"))
    words = heading._replace(title=heading.title.upper())
    head = ".TH " + " ".join(f'"{word}"' for word in words)
    lines = ['.\\" Made from Markdown by packaging/man.py.', head, ".nr HY 0", ".hy 0", ".ad l", *body.lines]
    return "\n".join(["'\\\" t", *lines] if body.has_table else lines) + "\n"


def inline(text: str) -> str:
    """Return a piece of running text with its fonts."""
    pieces, position = [], 0
    for found in _INLINE.finditer(text):
        pieces.append(_plain(text[position : found.start()]))
        code, bold, emphasis, link, reference = found.groups()
        if code or bold or reference:
            pieces.append(f"\\fB{_literal(code or bold or reference)}\\fR")
        elif emphasis:
            pieces.append(f"\\fI{_literal(emphasis)}\\fR")
        else:
            pieces.append(inline(link))
        position = found.end()
    pieces.append(_plain(text[position:]))
    return "".join(pieces)


def _plain(text: str) -> str:
    return _HYPHEN.sub(r"\\-", text.replace("\\", "\\e"))


def _literal(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def _guarded(line: str) -> str:
    """Keep a line of text from being a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


class _Page:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.has_table = False

    def blocks(self, lines: list[str]) -> None:
        """Turn one block after the other."""
        at = 0
        while at < len(lines):
            at = self._block(lines, at)

    def _block(self, lines: list[str], at: int) -> int:
        line = lines[at]
        if not line.strip():
            return at + 1
        if line.startswith("```"):
            end = lines.index("```", at + 1)
            self._code(lines[at + 1 : end])
            return end + 1
        end = at + 1
        while end < len(lines) and lines[end].strip() and not lines[end].startswith("```"):
            end += 1
        block = lines[at:end]
        if line.startswith("#"):
            level, _, text = line.partition(" ")
            shown = _literal(text.replace("`", ""))
            self.lines.append(f'.SH "{shown.upper()}"' if level == "##" else f'.SS "{shown}"')
            return at + 1
        if line.startswith("    "):
            self._code([text[4:] for text in block])
        elif line.startswith("|"):
            self._table([_cells(row) for row in block])
        elif len(block) > 1 and block[1].startswith(":   "):
            self.lines += [".TP", _guarded(inline(line)), *_text([block[1][4:], *block[2:]])]
        elif re.match(r"(- |\d+\. )", line):
            self._list(block)
        else:
            self.lines += [".PP", *_text(block)]
        return end

    def _code(self, lines: list[str]) -> None:
        self.lines += [".PP", ".RS 4", ".EX", *(_guarded(_literal(line)) for line in lines), ".EE", ".RE"]

    def _list(self, block: list[str]) -> None:
        for line in block:
            mark = re.match(r"(- |\d+\. )", line)
            if mark:
                self.lines.append(".IP \\(bu 2" if mark[1] == "- " else f".IP {mark[1].strip()} 4")
            self.lines += _text([line[mark.end() :] if mark else line])

    def _table(self, rows: list[list[str]]) -> None:
        head, body = rows[0], rows[2:]
        words = [word for row in body for cell in row[:-1] for word in cell.split()]
        if len(head) >= _MANY or max(map(len, words)) > _LONGEST:
            self._definitions(head, body)
            return
        self.has_table = True
        # Rows may be broken between pages: kept whole, they are an error of groff's where a page of a terminal ends.
        columns = [_column([re.sub(r"[`*]", "", row[column]) for row in rows]) for column in range(len(head) - 1)]
        shown = any(head)
        self.lines += [".PP", ".TS", "nokeep tab(\t);", *([" ".join("lB" for _ in head)] if shown else [])]
        self.lines.append(" ".join([*columns, "lx"]) + ".")
        if shown:
            self.lines += ["\t".join(inline(cell) for cell in head), "_"]
        for row in body:
            self.lines.append("\t".join(f"T{{\n{_guarded(inline(cell))}\nT}}" for cell in row))
        self.lines.append(".TE")

    def _definitions(self, head: list[str], body: list[list[str]]) -> None:
        """Show a wide table row by row: its first one or two cells, then the last, then what is between."""
        leading = 2 if len(head) > _MANY else 1
        above = ""
        for row in body:
            above = row[0] or above
            term = " ".join(inline(cell) for cell in [above, *row[1:leading]] if cell)
            between = "; ".join(
                f"{inline(name)}: {inline(cell)}"
                for name, cell in zip(head[leading:-1], row[leading:-1], strict=True)
                if cell
            )
            text = inline(row[-1]) + (f" ({between})" if between else "")
            self.lines += [".TP", _guarded(term), _guarded(text.strip())]


def _column(cells: list[str]) -> str:
    """Return the format of a column: as wide as its text, or folded, but never narrower than its longest word."""
    if max(map(len, cells)) <= _WIDEST:
        return "l"
    longest = max(len(word) for cell in cells for word in cell.split())
    return f"lw({max(_WIDEST, longest)}n)"


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def _text(lines: list[str]) -> list[str]:
    """Return running text, joined so that fonts may span lines, then broken after sentences."""
    joined = " ".join(line.strip() for line in lines)
    return [_guarded(inline(sentence)) for sentence in re.split(r"(?<=[a-z)`\]]\.) (?=[A-Z`])", joined)]
