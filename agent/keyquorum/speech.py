# SPDX-License-Identifier: Apache-2.0
"""Every word to a person passes here.

Results go to standard output; progress, verdicts, warnings and errors go to standard error, so that `--json` output
stays clean. Lines on standard error start with "keyquorum: ", are lower-case and have no full stop; a hint is a line
of its own. Colour only on terminals, and never where NO_COLOR is set. Nothing here ever sees a secret.
"""

from __future__ import annotations

import os
import sys

from keyquorum.errors import KeyquorumError
from keyquorum.model import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.report import Report, Verdict

_PREFIX = "keyquorum: "
_GREEN, _RED, _YELLOW, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_COLOURS = {
    report.VALID: _GREEN,
    report.REFUSED: _RED,
    report.TAMPERED: _RED,
    report.SILENT: _YELLOW,
    report.WAITING: _YELLOW,
}


def say(line: str) -> None:
    """Print a line of the result, one line whatever is in it: scripts read lines, and a disk may have written this one.

    Raises BrokenPipeError when nobody reads, `KeyquorumError` when it cannot be written.
    """
    try:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise KeyquorumError(f"standard output cannot be written: {error.strerror}") from None


def say_text(text: str) -> None:
    """Print several lines of our own; raises as `say` does."""
    for line in text.split("\n"):
        say(line)


def note(line: str) -> None:
    """Tell how far things are."""
    _tell(line)


def warn(line: str) -> None:
    """Tell what the person should know although nothing failed."""
    _tell("warning: " + line, _YELLOW)


def fail(error: KeyquorumError) -> None:
    """Tell what failed, and the next step."""
    _tell(error.message, _RED)
    if error.hint:
        _tell("  " + error.hint)


def verdict(found: Verdict, width: int = 0) -> None:
    """Tell one holder's verdict."""
    _tell(verdict_line(found, width), _COLOURS.get(found.verdict, ""))


def verdict_line(found: Verdict, width: int = 0) -> str:
    """Return the one line about a holder, the same in console, journal and files."""
    line = f"  {found.name:<{width}} ({found.kind}): {found.verdict}"
    if found.seconds >= 0.0005:
        line += f" in {found.seconds:.2f} s"
    if found.reason:
        line += f": {found.reason}"
    if found.hint:
        line += f" ({found.hint})"
    return line


def outcome_line(found: Report) -> str:
    """Return the one sentence about how an unlock or check ended."""
    name = found.name or found.device
    valid = sum(1 for verdict in found.verdicts if verdict.verdict == report.VALID)
    endings = {
        "opened": f"{name} is open, from {valid} of {len(found.verdicts)} fragments",
        "already open": f"{name} is open already",
        "quorum": f"{found.device} would open: {valid} of {len(found.verdicts)} fragments are valid",
        report.HANDED_OUT: f"{name} gets its passphrase, from {valid} of {len(found.verdicts)} fragments",
    }
    return endings.get(found.outcome) or f"{name} stays closed: {found.message}"


def printable(line: str) -> str:
    """Make a line fit for a terminal or a log: parts of it may come from a disk that somebody else wrote."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


def _tell(line: str, colour: str = "") -> None:
    """Write to standard error; a console that is gone or a journal that crashed stops no unlock (I3)."""
    line = printable(line)
    try:
        if colour and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            line = colour + line + _PLAIN
        sys.stderr.write(_PREFIX + line + "\n")
        sys.stderr.flush()
    except OSError:
        return
