# SPDX-License-Identifier: Apache-2.0
"""The recovery sheet as text of 80 columns and as a QR code (docs/holders-people.md §3). Enrolment only.

A sheet is printed for people, so here the identity does pass through ordinary memory.
"""

from __future__ import annotations

import segno

from keyquorum.model import sheet_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.contract import Subject
    from keyquorum.secret import Identity

COLUMNS = 80
_QUIET = 4  # modules of free space around a QR code (ISO/IEC 18004)
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_TEXT = """\
{rule}
KEYQUORUM RECOVERY SHEET
{rule}

One fragment of the key of an encrypted volume.

  volume    {volume}
  host      {host}
  holder    {name} (fragment {index} of the policy)
  printed   {printed}

{lines}

To use it, type the five lines when the machine asks for this sheet, one by one
or all at once. On a running system: keyquorum recover DEVICE

Capital and small letters are the same, spaces and dashes do not matter, O is
read as 0, I and L as 1. The last two characters of each line check it.

Whoever has this sheet has one of the fragments that the policy asks for. Keep
it away from the machine and from other fragments. When a newer sheet is printed
for this place, destroy this one.

The five lines again, for a scanner that types what it reads:
"""


def render_text(subject: Subject, identity: Identity, host: str, printed: str) -> str:
    """Return the sheet; `printed` is the date in UTC as it is to be shown."""
    lines = sheet_lines(subject, identity)
    text = _TEXT.format(
        rule="=" * COLUMNS,
        volume=subject.volume,
        host=_shown(host),
        name=subject.name,
        index=subject.index,
        printed=printed,
        lines="\n".join(f"  line {number}    {line}" for number, line in enumerate(lines, 1)),
    )
    return f"{text}{_half_blocks(_code(lines))}"


def sheet_lines(subject: Subject, identity: Identity) -> tuple[str, ...]:
    """Return the five lines that a person types."""
    place = sheet_text.place_tag(subject.set_id, subject.name)
    return sheet_text.encode(identity, sheet_text.volume_tag(subject.volume), place)


def _shown(host: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in host)[: COLUMNS - 12]


def _code(lines: tuple[str, ...]) -> segno.QRCode:
    """All characters in one row: a scanner that acts as a keyboard types the whole sheet."""
    return segno.make_qr("".join(lines).replace("-", ""), error="m", boost_error=False)


def _half_blocks(code: segno.QRCode) -> str:
    """Draw two rows of the code in one row of text, dark on light."""
    dark = [[bool(module) for module in row] for row in code.matrix_iter(border=_QUIET)]
    if len(dark) % 2:
        dark.append([False] * len(dark[0]))
    rows = zip(dark[::2], dark[1::2], strict=True)
    return "\n".join("".join(_HALVES[pair] for pair in zip(*two, strict=True)).rstrip() for two in rows) + "\n"
