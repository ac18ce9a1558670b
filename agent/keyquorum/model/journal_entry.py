# SPDX-License-Identifier: Apache-2.0
"""An unlock as entries of the journal: which fields, which MESSAGE_ID, which priority (docs/daemon.md §4)."""

from __future__ import annotations

from keyquorum.model import report as reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.report import Report, Verdict

VERDICT_ID = "90c63ed146214f55b7750ebdb3d2843b"
OPENED_ID = "a6328e580a0643458b533c7b0fee1bfb"
CLOSED_ID = "50a327d9d4ad41a2b881982f28a67db2"
RETRY_ID = "7f0e527e631845c9a2f60067f72d1d1d"
WITHDRAWN_ID = "b88f707e6e2941539f39dc1264661365"
HANDED_OUT_ID = "61a29d9172de492796024fd99c45eb0e"

_ERROR, _WARNING, _NOTICE, _INFO = "3", "4", "5", "6"  # syslog(3)
_PRIORITIES = {
    reports.VALID: _INFO,
    reports.NOT_NEEDED: _INFO,
    reports.NOT_ASKED: _INFO,
    reports.WAITING: _INFO,
    reports.TAMPERED: _ERROR,
}


def of_verdict(report: Report, verdict: Verdict, line: str) -> dict[str, str]:
    """Return the entry about one holder; `line` is what the console shows."""
    return {
        **_head(VERDICT_ID, _PRIORITIES.get(verdict.verdict, _WARNING), line),
        **_volume(report),
        "KEYQUORUM_HOLDER": verdict.name,
        "KEYQUORUM_KIND": verdict.kind,
        "KEYQUORUM_INDEX": str(verdict.index),
        "KEYQUORUM_VERDICT": verdict.verdict,
        "KEYQUORUM_REASON": verdict.reason,
        "KEYQUORUM_HINT": verdict.hint,
        "KEYQUORUM_MILLISECONDS": str(round(verdict.seconds * 1000)),
    }


def of_outcome(report: Report, line: str) -> dict[str, str]:
    """Return the entry about how it ended."""
    failed = report.exit_code != 0
    handed_out = report.outcome == reports.HANDED_OUT
    return {
        **_head(
            CLOSED_ID if failed else HANDED_OUT_ID if handed_out else OPENED_ID, _ERROR if failed else _NOTICE, line
        ),
        **_volume(report),
        "KEYQUORUM_OUTCOME": report.outcome,
        "KEYQUORUM_EXIT_CODE": str(report.exit_code),
        "KEYQUORUM_MISSING": str(report.missing),
        "KEYQUORUM_HINT": report.hint,
    }


def of_event(message_id: str, name: str, line: str) -> dict[str, str]:
    """Return the entry about something that keyquorumd did for the mapping `name`."""
    return {**_head(message_id, _NOTICE, line), "KEYQUORUM_NAME": name}


def _head(message_id: str, priority: str, line: str) -> dict[str, str]:
    return {"MESSAGE": line, "MESSAGE_ID": message_id, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "keyquorum"}


def _volume(report: Report) -> dict[str, str]:
    return {
        "KEYQUORUM_VOLUME": report.volume,
        "KEYQUORUM_NAME": report.name,
        "KEYQUORUM_DEVICE": report.device,
    }
