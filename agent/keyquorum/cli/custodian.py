# SPDX-License-Identifier: Apache-2.0
"""Run a custodian: a service that keeps fragments of other machines and gives them back on proof.

A custodian is a directory with its keys, its store and its log. init makes one; serve answers machines;
enroll-machine lets one in and prints the token that its owner's side presents. Everything it decides is in its log
(keyquorum log). What a custodian is: docs/custodian.md.

for example:
  keyquorum custodian init --trial invitation.json --directory custodian
  keyquorum custodian init --origin custodian.example --unsafe-without-witnesses
  keyquorum custodian serve
  keyquorum custodian enroll-machine web-1 --country NO --region eu-north
  keyquorum custodian list
  keyquorum custodian approve 41 --as anna --key anna.key
"""

from __future__ import annotations

from keyquorum import speech
from keyquorum.cli import custodian_operate, custodian_renew, custodian_trial, custodian_witness, shell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.custodian.site_settings import SiteSettings

SUMMARY = "keep fragments for other machines, as a service"
DIRECTORY = "/var/lib/keyquorum-custodian"
SOURCES = ("tsm", "sev-guest", "nitro", "azure")  # custodian.proving has them, which is not imported for --help
_INIT = "Make a custodian in an empty directory: keys, certificate authority, store with its log, settings."
_SERVE = """\
Answer machines until SIGTERM. SIGHUP: read settings and certificates again, without cutting off connections.
systemd passes the sockets, if it runs the custodian by keyquorum-custodian.socket.
"""


def add_directory(parser: ArgumentParser) -> None:
    """Declare --directory."""
    parser.add_argument("--directory", default=DIRECTORY, metavar="DIR", help=f"the custodian; default {DIRECTORY}")


def add_operator(parser: ArgumentParser) -> None:
    """Declare --as."""
    parser.add_argument(
        "--as", dest="operator", default="operator", metavar="NAME", help="who is acting, for the log; default operator"
    )


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _configure_init(verbs.add_parser("init", help="make a custodian", description=_INIT))
    serve = verbs.add_parser("serve", help="answer machines", description=_SERVE)
    add_directory(serve)
    serve.add_argument(
        "--evidence",
        default="",
        choices=SOURCES,
        metavar="SOURCE",
        help=f"be an enclave: prove what runs here by {', '.join(SOURCES[:-1])} or {SOURCES[-1]}",
    )
    custodian_operate.configure(verbs, add_directory, add_operator)
    custodian_witness.configure(verbs, add_directory)
    custodian_renew.configure(verbs, add_directory)


def _configure_init(parser: ArgumentParser) -> None:
    parser.add_argument("--origin", default="", metavar="NAME", help="the custodian's id and the name of its log")
    custodian_trial.configure(parser)
    add_directory(parser)
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name or address for the server's certificate beside the origin; may be given again",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="HOST:PORT; may be given again; default [::]:8443",
    )
    parser.add_argument(
        "--monitor", default="127.0.0.1:8444", metavar="ADDRESS", help="HOST:PORT for health and metrics, or none"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="COUNT", help="processes; default 2")
    add_labels(parser, "where the custodian is")
    parser.add_argument(
        "--sealing-key",
        choices=("file", "tpm", "pkcs11"),
        default="file",
        help="where the key is kept that deposits are sealed to; default file",
    )
    parser.add_argument("--uri", default="", metavar="URI", help="the token's key, for --sealing-key pkcs11 (RFC 7512)")
    parser.add_argument(
        "--witness", action="append", default=[], metavar="KEY", help="a witness's verifier key; may be given again"
    )
    parser.add_argument(
        "--unsafe-without-witnesses",
        action="store_true",
        help="serve although nobody could tell a restored backup from the newest store",
    )
    add_operator(parser)
    shell.add_answers(parser)
    shell.add_json(parser)


def add_labels(parser: ArgumentParser, what: str) -> None:
    """Declare the labels that release policies look at."""
    for name in ("region", "country", "operator"):
        parser.add_argument(
            f"--{name}",
            dest=f"label_{name}",
            default="",
            metavar="TEXT",
            help=f"{what}: its {name}, for release policies",
        )


def labels(arguments: Namespace) -> dict[str, str]:
    """Return the labels that were given."""
    found = {name: str(getattr(arguments, f"label_{name}")) for name in ("region", "country", "operator")}
    return {name: text for name, text in found.items() if text}


def run(arguments: Namespace) -> int:
    """Do one of them."""
    if arguments.action == "init":
        return _init(arguments)
    if arguments.action == "serve":
        from keyquorum.custodian.site import Site
        from keyquorum.custodian.supervisor import Supervisor

        return Supervisor(Site(arguments.directory), arguments.evidence).serve()
    if arguments.action in {"cosign", "restore", "witness", "newest"}:
        return custodian_witness.run(arguments)
    if arguments.action == "renew":
        return custodian_renew.run(arguments)
    return custodian_operate.run(arguments)


def _init(arguments: Namespace) -> int:
    from keyquorum.custodian.entry import Actor
    from keyquorum.custodian.site import Plan, Site

    custodian_trial.settle(arguments)
    settings = _settings(arguments)
    machine = shell.machine(arguments)
    listed = custodian_trial.endorsement_key(machine.tuning) if arguments.trial else b""
    plan = Plan(
        settings=settings,
        names=list(dict.fromkeys([settings.origin.partition("/")[0], *arguments.name])),
        kept=arguments.sealing_key,
        uri=arguments.uri,
    )
    site = Site(arguments.directory)
    site.make(plan, Actor(role="operator", name=arguments.operator), machine.answers, machine.tuning)
    log, cosigner = str(site.log_signer(settings).key), str(site.cosigner(settings).key)
    speech.note(f"{settings.origin} is founded in {site.directory}")
    if arguments.trial:
        custodian_trial.invite(arguments, site, settings, listed)
    if not settings.unsafe_without_witnesses:
        speech.note(
            f"before it serves, a witness must cosign {site.path('founded.note')}: put that as newest.note beside"
        )
    if arguments.json:
        outcome: dict[str, object] = {"version": 1, "command": "custodian init", "directory": site.directory}
        outcome |= {"origin": settings.origin, "log_key": log, "witness_key": cosigner, "invitation": arguments.trial}
        outcome["exit_code"] = 0
        shell.say_json(outcome)
        return 0
    speech.say(f"log key      {log}")
    speech.say(f"witness key  {cosigner}")
    return 0


def _settings(arguments: Namespace) -> SiteSettings:
    from keyquorum.custodian import note
    from keyquorum.custodian.site_settings import NO_MONITOR, SiteSettings, address
    from keyquorum.errors import UsageError

    witnesses = tuple(note.parse_key(text) for text in arguments.witness)
    if bool(witnesses) == arguments.unsafe_without_witnesses:
        raise UsageError(
            "give --witness, or --unsafe-without-witnesses, and not both", "docs/custodian.md §8.3 says why"
        )
    if bool(arguments.uri) != (arguments.sealing_key == "pkcs11"):
        raise UsageError("--uri names the key of --sealing-key pkcs11")
    if not 1 <= arguments.workers <= 64:
        raise UsageError("--workers is from 1 to 64")
    return SiteSettings(
        origin=note.check_name(arguments.origin),
        listen=tuple(address(text) for text in arguments.listen or ["[::]:8443"]),
        monitor=None if arguments.monitor == NO_MONITOR else address(arguments.monitor),
        workers=arguments.workers,
        labels=labels(arguments),
        witnesses=witnesses,
        logs=(),
        auditors={},
        operators={},
        unsafe_without_witnesses=arguments.unsafe_without_witnesses,
    )
