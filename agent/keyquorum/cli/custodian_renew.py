# SPDX-License-Identifier: Apache-2.0
"""`keyquorum custodian renew`: the custodian's own certificates anew (docs/custodian.md §11.4)."""

from __future__ import annotations

import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.evidence.instants import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable

_RENEW = """\
Make the certificates of the server and of the client anew, with their keys and names, by this custodian's authority.
serve does it by itself in the last third of their time. One that another authority issued is left alone.
"""


def configure(verbs: _SubParsersAction[ArgumentParser], add_directory: Callable[[ArgumentParser], None]) -> None:
    """Declare the action."""
    renew = verbs.add_parser("renew", help="make the server's certificate anew", description=_RENEW)
    add_directory(renew)
    shell.add_json(renew)


def run(arguments: Namespace) -> int:
    """Do it."""
    from keyquorum.custodian.site import Site

    site = Site(arguments.directory)
    renewed = site.renew(int(time.time()), early=True)
    expires = site.certificate_expires()
    if renewed:
        speech.note("a running service reads them when it is told: systemctl reload keyquorum-custodian")
    if arguments.json:
        outcome: dict[str, object] = {"version": 1, "command": "custodian renew", "renewed": renewed}
        shell.say_json(outcome | {"certificate_expires": expires["tls"], "exit_code": 0})
        return 0
    for name in renewed:
        speech.say(f"{name}.pem is valid until {shown(expires[name])}")
    if not renewed:
        speech.say("nothing to renew: another authority issued the certificates")
    return 0
