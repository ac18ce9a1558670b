# SPDX-License-Identifier: Apache-2.0
"""What the initramfs found out, written to the journal once per boot (docs/daemon.md §4).

The initramfs has no journal: it leaves /run/keyquorum/NAME.json. An unlock by a unit writes such a file too, but told
the journal itself.
"""

from __future__ import annotations

import json
import os

from keyquorum import speech
from keyquorum.errors import MalformedError
from keyquorum.linux import boot_record, journal
from keyquorum.model import journal_entry
from keyquorum.model import report as reports
from keyquorum.model.report import Report, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SUFFIX = ".json"
_MAX_REPORT = 1 << 20
_MAX_TEXT = 1000
_PIN_KINDS = ("tpm", "pkcs11")
_PIN_WORDS = "the PIN"  # how holders begin a refusal about one (holders/tpm_refusal.py, holders/pkcs11_token.py)


def read(name: str, directory: str = boot_record.DIRECTORY) -> Report | None:
    """Return the last report about a mapping, None when there is none; raises `MalformedError`."""
    path = os.path.join(directory, name + _SUFFIX)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_REPORT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MalformedError(path, "", f"cannot be read: {error.strerror}") from None
    if len(data) > _MAX_REPORT:
        raise MalformedError(path, "", f"is larger than {_MAX_REPORT >> 10} KiB")
    return parse(data, path)


def parse(data: bytes, what: str) -> Report:
    """Read a report that `boot_record.keep_report` wrote; raises `MalformedError`."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError(what, "", "is not JSON") from None
    if not isinstance(table, dict) or table.get("version") != reports.VERSION:
        raise MalformedError(what, "version", f"is not {reports.VERSION}")
    holders = table.get("holders")
    if not isinstance(holders, list) or not all(isinstance(holder, dict) for holder in holders):
        raise MalformedError(what, "holders", "must be a list of tables")
    texts = ("command", "device", "volume", "name", "outcome", "message", "hint")
    return Report(
        **{field: _text(table, field, what) for field in texts},
        exit_code=_number(table, "exit_code", what),
        missing=_number(table, "missing", what),
        verdicts=tuple(_verdict(holder, what) for holder in holders),
    )


def _verdict(table: dict[str, Any], what: str) -> Verdict:
    return Verdict(
        **{field: _text(table, field, what) for field in ("name", "kind", "verdict", "reason", "hint")},
        index=_number(table, "index", what),
        seconds=_number(table, "milliseconds", what) / 1000,
    )


def _text(table: dict[str, Any], field: str, what: str) -> str:
    value = table.get(field)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise MalformedError(what, field, f"must be a text of at most {_MAX_TEXT} characters")
    return speech.printable(value)


def _number(table: dict[str, Any], field: str, what: str) -> int:
    value = table.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise MalformedError(what, field, "must be a whole number")
    return value


def worth_waiting(report: Report | None) -> bool:
    """Say whether time alone may help after this attempt, and trying again uses up nothing.

    A TPM or token that refused may have been given a wrong PIN from a credential; each further try would count.
    """
    if report is None:
        return True
    return not any(v.verdict == reports.REFUSED and v.kind in _PIN_KINDS for v in report.verdicts)


def pin_refused(report: Report | None) -> bool:
    """Say whether a PIN was wrong in this attempt, most likely a stored one: each further try counts towards a lock."""
    verdicts = report.verdicts if report is not None else ()
    return any(
        v.verdict == reports.REFUSED and v.kind in _PIN_KINDS and v.reason.startswith(_PIN_WORDS) for v in verdicts
    )


def tell_journal(
    ran_here: Callable[[str], bool],
    told_file: str,
    directory: str = boot_record.DIRECTORY,
    send: Callable[[dict[str, str]], bool] = journal.send,
) -> int:
    """Write the reports of the initramfs to the journal, each once; return how many were written.

    `ran_here` says of a mapping's name whether its unit ran in this system. `told_file` remembers across restarts of
    the daemon which reports were told.
    """
    told, count = _read_told(told_file), 0
    for name in _names(directory):
        if name in told or ran_here(name):
            continue
        try:
            report = read(name, directory)
        except MalformedError as error:
            speech.warn(f"{error.message}")
            continue
        if report is not None and _tell(report, send):
            told.append(name)
            count += 1
    if count:
        _write_told(told_file, told)
    return count


def _tell(report: Report, send: Callable[[dict[str, str]], bool]) -> bool:
    for verdict in report.verdicts:
        if not send(journal_entry.of_verdict(report, verdict, speech.verdict_line(verdict).strip())):
            return False
    return send(journal_entry.of_outcome(report, speech.outcome_line(report)))


def _names(directory: str) -> list[str]:
    try:
        return sorted(name.removesuffix(_SUFFIX) for name in os.listdir(directory) if name.endswith(_SUFFIX))
    except OSError:
        return []


def _read_told(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_REPORT).splitlines()
    except OSError:
        return []


def _write_told(path: str, names: list[str]) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in names))
    except OSError as error:
        speech.warn(f"{path} cannot be written: {error.strerror}")
