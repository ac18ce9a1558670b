# SPDX-License-Identifier: Apache-2.0
"""Read a custodian's log, prove an entry to others, and check what a custodian says.

verify reads the whole log of a custodian here and compares it with checkpoints that were kept elsewhere; or, with
--receipt, checks a receipt that a machine got, which needs nothing but the log's key.

for example:
  keyquorum log show --start 40
  keyquorum log verify --checkpoint last-month.note
  keyquorum log prove 41 > entry-41.receipt
  keyquorum log verify --receipt entry-41.receipt --key custodian.example+1f6d+AX4…
"""

from __future__ import annotations

import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.entry import Entry
    from keyquorum.custodian.log_check import LogReport
    from keyquorum.custodian.note import VerifierKey

SUMMARY = "read and check a custodian's log"
_MAX_COUNT = 1000


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    from keyquorum.cli.custodian import add_directory

    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = verbs.add_parser("show", help="show entries of a custodian here")
    show.add_argument("--start", type=int, default=0, metavar="NUMBER", help="from this entry on; default 0")
    show.add_argument("--count", type=int, default=100, metavar="COUNT", help="how many; default 100, at most 1000")
    verify = verbs.add_parser("verify", help="check a whole log, or one receipt")
    verify.add_argument(
        "--checkpoint", action="append", default=[], metavar="FILE", help="one kept elsewhere; may be given again"
    )
    verify.add_argument("--receipt", default="", metavar="FILE", help="check this receipt and no log")
    verify.add_argument("--key", default="", metavar="KEY", help="the log's verifier key, for --receipt")
    verify.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="KEY",
        help="one of whom must have cosigned; may be given again",
    )
    prove = verbs.add_parser("prove", help="write the receipt of an entry to standard output")
    prove.add_argument("number", type=int, metavar="NUMBER", help="the entry's number")
    for one in (show, verify, prove):
        add_directory(one)
    for one in (show, verify):
        shell.add_json(one)


def run(arguments: Namespace) -> int:
    """Do one of them."""
    if arguments.action == "verify" and arguments.receipt:
        return _verify_receipt(arguments)
    if arguments.action == "verify":
        return _verify(arguments)
    return _show(arguments) if arguments.action == "show" else _prove(arguments)


def _show(arguments: Namespace) -> int:
    from keyquorum.custodian import entry
    from keyquorum.custodian.site import Site

    if arguments.start < 0 or not 1 <= arguments.count <= _MAX_COUNT:
        raise UsageError(f"--start is from 0, --count from 1 to {_MAX_COUNT}")
    site = Site(arguments.directory)
    store = site.open_for_reading(site.settings())
    try:
        found = [entry.parse(body) for body in store.entries(arguments.start)[: arguments.count]]
    finally:
        store.close()
    if arguments.json:
        rows = [entry_table(one) for one in found]
        shell.say_json({"version": 1, "command": "log show", "entries": rows, "exit_code": 0})
        return 0
    for one in found:
        speech.say(entry_line(one))
    return 0


def _verify(arguments: Namespace) -> int:
    from keyquorum.custodian import log_check
    from keyquorum.custodian.site import Site

    site = Site(arguments.directory)
    settings = site.settings()
    key = site.log_signer(settings).key
    kept = [_checkpoint(path, key) for path in arguments.checkpoint]
    store = site.open_for_reading(settings)
    try:
        report = store.examine(key)
        if kept:
            report = _worse(report, log_check.examine(store.log.bodies(), kept))
    finally:
        store.close()
    if arguments.json:
        findings = [{"number": found.number, "problem": found.problem} for found in report.findings]
        outcome: dict[str, object] = {"version": 1, "command": "log verify", "size": report.size}
        outcome |= {"root": report.root.hex(), "confirmed": report.confirmed, "findings": findings}
        shell.say_json(outcome | {"exit_code": 4 if findings else 0})
    else:
        speech.say(f"{report.size} entries, root {report.root.hex()}, {report.confirmed} of them under a checkpoint")
        for found in report.findings:
            speech.say(f"  {found.problem}")
    report.demand()
    return 0


def _worse(one: LogReport, other: LogReport) -> LogReport:
    """Return what both found, confirmed as far as the more confident of the two."""
    from dataclasses import replace

    return replace(one, confirmed=max(one.confirmed, other.confirmed), findings=one.findings + other.findings)


def _checkpoint(path: str, key: VerifierKey) -> Verified:
    from keyquorum.custodian import checkpoint, note

    return checkpoint.verify(shell.read_file(path, note.MAX_NOTE), key)


def _verify_receipt(arguments: Namespace) -> int:
    from keyquorum.custodian import note, receipt

    if not arguments.key:
        raise UsageError("a receipt is checked by the log's key: --key", "keyquorum custodian status shows it")
    witnesses = tuple(note.parse_key(text) for text in arguments.witness)
    data = shell.read_file(arguments.receipt, receipt.MAX_RECEIPT)
    found = receipt.verify(data, note.parse_key(arguments.key), witnesses, 1 if witnesses else 0)
    if arguments.json:
        outcome: dict[str, object] = {"version": 1, "command": "log verify", "entry": entry_table(found.entry)}
        outcome |= {"size": found.verified.checkpoint.size, "witnesses": sorted(found.verified.witnesses)}
        shell.say_json(outcome | {"exit_code": 0})
        return 0
    speech.say(f"the log of {found.verified.checkpoint.origin} has this entry, of {found.verified.checkpoint.size}:")
    speech.say(f"  {entry_line(found.entry)}")
    return 0


def _prove(arguments: Namespace) -> int:
    from keyquorum.custodian import witnessed_receipt
    from keyquorum.custodian.site import Site

    site = Site(arguments.directory)
    settings = site.settings()
    store = site.open_store(settings)
    try:
        if not 0 <= arguments.number < store.size:
            raise UsageError(f"the log has no entry {arguments.number}")
        made, _ = witnessed_receipt.prove(store, arguments.number, site.log_signer(settings), settings.witnesses)
    finally:
        store.close()
    speech.say_text(made.decode().removesuffix("\n"))
    return 0


def entry_line(found: Entry) -> str:
    """Return an entry in one line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found.at))
    about = f" {found.machine}" if found.machine else ""
    name = found.fragment
    which = f" fragment {name.index} of {name.volume}, epoch {name.epoch}" if name else ""
    why = f": {found.reason}" if found.reason else ""
    return f"{found.number} {when} {found.kind} {found.act}{about}{which} by {found.who.role} {found.who.name}{why}"


def entry_table(found: Entry) -> dict[str, Any]:
    """Return an entry as the log has it."""
    from keyquorum.errors import TamperingError
    from keyquorum.model import strict_json

    table: dict[str, Any] = strict_json.parse(found.serialise(), "the log entry", 1 << 16, TamperingError)
    return table
