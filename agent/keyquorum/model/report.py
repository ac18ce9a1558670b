# SPDX-License-Identifier: Apache-2.0
"""What an unlock found out, without any secret: the same facts for console, journal and `--json` (I8)."""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1

# A holder's verdict (docs/boot.md §5).
VALID = "valid"  # gave its fragment, and the fragment is what the owner signed
UNAVAILABLE = "unavailable"  # not there
REFUSED = "refused"  # there, and says no
TAMPERED = "tampered"  # gave something that is not what the owner signed
SILENT = "silent"  # did not answer by its deadline
WAITING = "waiting"  # there, and waits for a person's approval elsewhere
NOT_NEEDED = "not needed"  # the quorum was reached without it
NOT_ASKED = "not asked"  # left out by the caller, or nobody there to ask

HANDED_OUT = "handed out"


class Verdict(Record):
    """One holder's part in an unlock. `seconds` is how long it took, 0.0 when it was not asked."""

    index: int
    name: str
    kind: str
    verdict: str
    reason: str = ""
    hint: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as data; times in whole milliseconds."""
        return {
            "index": self.index,
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "reason": self.reason,
            "hint": self.hint,
            "milliseconds": round(self.seconds * 1000),
        }


class Report(Record):
    """The outcome of `unlock`, `check` or `recover`.

    `outcome` is "opened", "already open", "quorum" (a check that would open), "handed out" (the keyslot's passphrase,
    to systemd-cryptsetup) or "failed".
    """

    command: str
    device: str
    volume: str
    name: str
    outcome: str
    exit_code: int
    missing: int
    verdicts: tuple[Verdict, ...]
    message: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the report as data."""
        return {
            "version": VERSION,
            "command": self.command,
            "device": self.device,
            "volume": self.volume,
            "name": self.name,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "missing": self.missing,
            "holders": [verdict.to_json() for verdict in self.verdicts],
            "message": self.message,
            "hint": self.hint,
        }
