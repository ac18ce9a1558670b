# SPDX-License-Identifier: Apache-2.0
"""Holder `sheet`: the identity is printed and typed back (docs/holders-people.md §3)."""

from __future__ import annotations

import os
import time

from keyquorum.errors import MalformedError, RefusedError, TamperingError
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.model import sheet_text, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.sheet_text import LINE_SIZE, LINES, SYMBOLS
from keyquorum.native import sodium
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.holders.contract import Subject
    from keyquorum.secret import Identity

_VERSION = 1
_CHECK_SIZE = 8
_TRIES = 3


class SheetHolder:
    """See the contract in `holders.contract`."""

    keeps_envelope = False

    def needs_person(self, _where: Mapping[str, Any]) -> bool:
        """Somebody has to type it, or a credential to hold it."""
        return True

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Show the sheet, as text to be printed. What becomes of the text is the caller's business."""
        from keyquorum.holders import sheet_print

        printed = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        task.show(sheet_print.render_text(task.subject, task.identity, os.uname().nodename, printed))
        with Secret.from_view(" ".join(sheet_print.sheet_lines(task.subject, task.identity)).encode()) as lines:
            task.answers.offer(task.subject.name, lines)  # the proof of an enrolment need not type it
        return {"version": _VERSION, "check": _check(task.subject, task.identity).hex()}

    def open(self, task: OpenTask) -> Held:
        """Ask for the lines, all at once or one by one, and see that it is the right sheet."""
        fields, subject = Fields(task.where, "set", TamperingError, "where"), task.subject
        fields.version(_VERSION)
        check = fields.hexadecimal("check", _CHECK_SIZE)
        fields.finish()
        with Secret(SYMBOLS) as symbols:
            _ask(task, symbols)
            try:
                sheet = sheet_text.decode(symbols)
            except MalformedError as mistake:
                raise RefusedError(mistake.message, mistake.hint) from None
        problem = _mismatch(subject, sheet)
        if not problem and _check(subject, sheet.identity) != check:
            problem = "this sheet was replaced by a later one"
        if problem:
            sheet.identity.wipe()
            raise RefusedError(problem, f"look for the sheet of volume {subject.volume}, holder {subject.name}")
        return Held(identity=sheet.identity)

    def erase(self, task: OpenTask) -> None:
        """Paper is destroyed by people."""

    def retire(self, task: OpenTask) -> None:
        """Paper is destroyed by people."""


def _ask(task: OpenTask, symbols: Secret) -> None:
    """Fill `symbols`. A person who mistypes a line is told which and types only that one again."""
    name, filled, failures, problem = task.subject.name, 0, 0, ""
    while filled < SYMBOLS:
        line = filled // LINE_SIZE + 1
        question = f"sheet {name}, line {line} of {LINES}" + (" (or all lines)" if not filled else "")
        alone = not task.answers.ready(name)
        with task.answers.ask(name, f"{problem}; {question}" if problem else question) as typed:
            try:
                filled, problem = sheet_text.take_lines(typed, symbols, filled), ""
            except MalformedError as mistake:
                failures += 1
                if failures == _TRIES or not alone:
                    raise RefusedError(mistake.message, mistake.hint) from None
                problem = mistake.message
        if filled < SYMBOLS and not alone:
            raise RefusedError(f"the stored answer for sheet {name} has {filled // LINE_SIZE} of {LINES} lines")


def _mismatch(subject: Subject, sheet: sheet_text.Sheet) -> str:
    if sheet.volume_tag != sheet_text.volume_tag(subject.volume):
        return "this sheet belongs to another volume"
    if sheet.place_tag != sheet_text.place_tag(subject.set_id, subject.name):
        return "this sheet belongs to this volume, but to another holder or an earlier enrolment"
    return ""


def _check(subject: Subject, identity: Identity) -> bytes:
    """Return a short public mark of the right identity. It has 256 random bits: no mark helps to guess it."""
    bound = {"volume": subject.volume, "set": subject.set_id.hex(), "name": subject.name}
    prefix = b"keyquorum/v1/sheet-check\x00" + strict_json.serialise(bound)
    return sodium.sha256_over_secret(prefix, identity)[:_CHECK_SIZE]


HOLDER = SheetHolder()
