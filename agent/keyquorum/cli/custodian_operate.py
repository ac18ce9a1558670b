# SPDX-License-Identifier: Apache-2.0
"""The operator's part of `keyquorum custodian`: machines in and out, requests that wait, how it stands."""

from __future__ import annotations

import os
import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import KeyquorumError, MalformedError, UsageError
from keyquorum.model.machine_identity import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable
    from typing import Any

    from keyquorum.custodian.entry import Actor, Entry
    from keyquorum.custodian.site import Site
    from keyquorum.custodian.site_settings import SiteSettings
    from keyquorum.custodian.store import Store
    from keyquorum.custodian.store_enrolment import Offer

    Add = Callable[[ArgumentParser], None]

_ENROLL = """\
Offer a machine to be enrolled: print the token that its owner's side presents within an hour, and what that side has
to know of this custodian. The machine's TPM must prove its keys by its maker's certificate (ek_roots.pem), or be named
here by the SHA-256 of its endorsement key.
"""
_REMEDY = {
    **dict.fromkeys(("tls", "client"), "keyquorum custodian renew"),
    "authority": "machines need another custodian before (docs/custodian.md §11.4)",
}
_READING = ("list", "log")  # an old copy, too, can be looked at
_ANSWERS = {
    "approve": "Let a request through that waits for people. Enough of those whom its policy names must agree.",
    "deny": "Refuse a request that waits for people. One refusal ends the waiting.",
}


def configure(verbs: _SubParsersAction[ArgumentParser], add_directory: Add, add_operator: Add) -> None:
    """Declare the actions."""
    from keyquorum.cli.custodian import add_labels

    enroll = verbs.add_parser("enroll-machine", help="offer a machine to be enrolled", description=_ENROLL)
    enroll.add_argument("machine", metavar="NAME", help="the machine's name, given once and for ever")
    add_labels(enroll, "where the machine is")
    enroll.add_argument(
        "--ek", default="", metavar="SHA256", help="its endorsement key, if no maker's certificate counts"
    )
    enroll.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where the machine finds this custodian, HOST:PORT; may be given 8 times; default: its id, port 8443",
    )
    add_operator(enroll)
    listing = verbs.add_parser("list", help="list machines and requests that wait")
    for action, text in _ANSWERS.items():
        answer = verbs.add_parser(action, help=text.split(".")[0].lower(), description=text)
        answer.add_argument("number", type=int, metavar="NUMBER", help="of the request, as list shows it")
        answer.add_argument("--as", dest="operator", required=True, metavar="NAME", help="who is answering")
        answer.add_argument("--key", required=True, metavar="FILE", help="the private key of whoever is answering")
        answer.add_argument("--reason", default="", metavar="TEXT", help="why, for the log")
        add_directory(answer)
        shell.add_json(answer)
    revoke = verbs.add_parser("revoke", help="never release anything to a machine again")
    revoke.add_argument("machine", metavar="NAME", help="the machine's name")
    revoke.add_argument("--reason", default="", metavar="TEXT", help="why, for the log")
    add_operator(revoke)
    shell.add_yes(revoke)
    log = verbs.add_parser("log", help="show the newest entries of the log")
    log.add_argument("--last", type=int, default=20, metavar="COUNT", help="how many; default 20")
    status = verbs.add_parser("status", help="say how the custodian stands")
    for parser in (enroll, listing, revoke, log, status):
        add_directory(parser)
        shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Do one of them."""
    from keyquorum.custodian.site import Site

    site = Site(arguments.directory)
    settings = site.settings()
    store = (site.open_for_reading if arguments.action in _READING else site.open_store)(settings)
    try:
        outcome, lines = _ACTIONS[arguments.action](arguments, site, settings, store)
    finally:
        store.close()
    if arguments.json:
        shell.say_json({"version": 1, "command": f"custodian {arguments.action}", **outcome, "exit_code": 0})
    else:
        for line in lines:
            speech.say(line)
    return 0


def _enroll(arguments: Namespace, site: Site, settings: SiteSettings, store: Store) -> tuple[dict[str, Any], list[str]]:
    from keyquorum.cli.custodian import labels
    from keyquorum.custodian.store_enrolment import Offer

    addresses = _addresses(arguments.address)
    offered = Offer(machine=arguments.machine, labels=labels(arguments), listed_ek=_hash(arguments.ek))
    outcome = offer(arguments, site, settings, store, offered=offered, addresses=addresses)
    lines = [f"{name:<10} {outcome[name]}" for name in ("machine", "custodian", "token", "log_key")]
    lines += [f"expires    {_instant(outcome['expires'])}", *outcome["authority"].splitlines()]
    return outcome, lines


def offer(
    arguments: Namespace, site: Site, settings: SiteSettings, store: Store, *, offered: Offer, addresses: list[str]
) -> dict[str, Any]:
    """Offer a machine an enrolment, by a new token; return what its side has to know."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from keyquorum.custodian.store_enrolment import TOKEN, TOKEN_LIFE, Enrolments

    now, token = int(time.time()), os.urandom(TOKEN)
    Enrolments(store).offer(token, offered, _actor(arguments), now)
    return {
        "machine": offered.machine,
        "custodian": settings.origin,
        "token": token.hex(),
        "expires": now + TOKEN_LIFE,
        "log_key": str(site.log_signer(settings).key),
        "authority": site.authority().certificate.public_bytes(Encoding.PEM).decode("ascii"),
        "addresses": addresses,
    }


def _addresses(given: list[str]) -> list[str]:
    """Refuse now what no machine would take."""
    from keyquorum.model import network_address
    from keyquorum.model.fields import Fields

    if not given:
        return []
    fields = Fields({"--address": given}, "custodian enroll-machine", MalformedError)
    return [str(found) for found in network_address.take(fields, "--address")]


def _list(
    _arguments: Namespace, _site: Site, _settings: SiteSettings, store: Store
) -> tuple[dict[str, Any], list[str]]:
    from keyquorum.custodian.store_listing import machines, waiting

    rows, asked = machines(store), waiting(store, int(time.time()))
    lines = [
        f"machine {row['name']}: {row['deposits']} deposits{', revoked' if row['revoked'] else ''}" for row in rows
    ] or ["no machine is enrolled"]
    lines += [f"request {row['number']} of {row['machine']} waits until {_instant(row['expires'])}" for row in asked]
    return {"machines": rows, "waiting": asked}, lines


def _answer(
    arguments: Namespace, _site: Site, settings: SiteSettings, store: Store
) -> tuple[dict[str, Any], list[str]]:
    from keyquorum.custodian import answering, approval
    from keyquorum.custodian.approval import Approval
    from keyquorum.linux import owner_key
    from keyquorum.model import strict_json

    try:
        signer = owner_key.load(arguments.key)
    except FileNotFoundError:
        raise UsageError(f"{arguments.key} is missing") from None
    now, approved = int(time.time()), arguments.action == "approve"
    said = Approval(
        custodian=settings.origin,
        number=arguments.number,
        entry=answering.pending(store, arguments.number).entry,
        operator=arguments.operator,
        answer=approval.APPROVE if approved else approval.REFUSE,
        at=now,
        reason=arguments.reason,
    )
    envelope = strict_json.serialise(signer.sign(approval.APPROVAL_TYPE, said.payload()))
    found = answering.answer(store, arguments.number, envelope, now, settings.operators)
    return _noted(found, f"request {arguments.number} is {'approved' if approved else 'refused'} by {found.who.name}")


def _revoke(
    arguments: Namespace, _site: Site, _settings: SiteSettings, store: Store
) -> tuple[dict[str, Any], list[str]]:
    if not arguments.yes:
        shell.confirm(f"{arguments.machine} will never get a fragment again, not even under this name.")
    found = store.revoke_machine(arguments.machine, _actor(arguments), int(time.time()), arguments.reason)
    return _noted(found, f"{arguments.machine} is revoked")


def _log(arguments: Namespace, _site: Site, _settings: SiteSettings, store: Store) -> tuple[dict[str, Any], list[str]]:
    from keyquorum.cli.log import entry_line, entry_table
    from keyquorum.custodian import entry

    if not 1 <= arguments.last <= 1000:
        raise UsageError("--last is from 1 to 1000")
    found = [entry.parse(body) for body in store.entries(max(0, store.size - arguments.last))]
    return {"entries": [entry_table(one) for one in found]}, [entry_line(one) for one in found]


def _status(
    _arguments: Namespace, site: Site, settings: SiteSettings, store: Store
) -> tuple[dict[str, Any], list[str]]:
    from keyquorum.custodian.store_listing import counts as count

    counts = count(store)
    expires = site.certificate_expires()
    soon = [name for name, ends in expires.items() if time.time() >= ends - WARNING]
    witnessed = site.witnessed(settings)
    outcome = {
        "custodian": settings.origin,
        "directory": site.directory,
        "log_key": str(site.log_signer(settings).key),
        "witness_key": str(site.cosigner(settings).key),
        "current": store.current,
        "certificate_expires": expires["tls"],
        "expires_soon": soon,
        "client_key": site.client_key(),
        "keep_days": settings.keep_days,
        "witnessed": witnessed,
        **counts,
    }
    lines = [
        f"{settings.origin} in {site.directory}",
        f"  log key      {outcome['log_key']}",
        f"  witness key  {outcome['witness_key']}",
        f"  client key   {outcome['client_key']}",
        f"  the server's certificate expires {_instant(expires['tls'])}",
        *(f"  {name}.pem expires {_instant(expires[name])}: {_REMEDY[name]}" for name in soon),
        *(f"  {name.replace('_', ' ')}: {value}" for name, value in counts.items()),
        f"  witnesses have {witnessed} entries of the log",
        f"  evidence and checkpoints that no witness has are kept for {settings.keep_days} days, the log for ever",
    ]
    if not store.current:
        lines.append("  releases nothing: not yet compared with what witnesses have (docs/custodian.md §8.3)")
    return outcome, lines


_ACTIONS: dict[str, Callable[[Namespace, Site, SiteSettings, Store], tuple[dict[str, Any], list[str]]]] = {
    "enroll-machine": _enroll,
    "list": _list,
    "approve": _answer,
    "deny": _answer,
    "revoke": _revoke,
    "log": _log,
    "status": _status,
}


def _noted(found: Entry, line: str) -> tuple[dict[str, Any], list[str]]:
    return {"number": found.number}, [f"{line}, as entry {found.number} says"]


def _actor(arguments: Namespace) -> Actor:
    from keyquorum.custodian.entry import Actor

    return Actor(role="operator", name=arguments.operator)


def _hash(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise MalformedError("--ek", "", "is no hexadecimal number") from None
    if len(found) not in {0, 32}:
        raise MalformedError("--ek", "", "is no SHA-256, which has 64 hexadecimal digits")
    return found


def _instant(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        raise KeyquorumError(f"{seconds} is no instant") from None
