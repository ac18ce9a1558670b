# SPDX-License-Identifier: Apache-2.0
"""Enrol this machine at custodians, so that its volumes may keep fragments there.

The invitation is what the custodian's operator gets from `keyquorum custodian enroll-machine NAME --json` and hands
over; its token is good once. This machine's TPM proves that it has the keys, and what it keeps afterwards is no secret
without that TPM. Where no maker's certificate counts, the operator needs the endorsement key that show prints.

for example:
  keyquorum machine show
  keyquorum machine enroll --invitation /root/eu-1.json --address 192.0.2.7:8443
  keyquorum machine renew
"""

from __future__ import annotations

import os
import sys
import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.enroll import machine_file
from keyquorum.enroll.machine import enroll_machine
from keyquorum.enroll.renew import renew_machine
from keyquorum.errors import KeyquorumError, MalformedError, UnavailableError, UsageError
from keyquorum.evidence import tpm_public
from keyquorum.evidence.ek_certificate import key_hash
from keyquorum.holders import REMOTE, machine_keys
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.linux import block, boot_image, owner_key
from keyquorum.linux.private_header import copy_header
from keyquorum.model import invitation as invitations
from keyquorum.model import network_address
from keyquorum.model.fields import Fields
from keyquorum.unlock.verified_set import verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.enroll.request import Machine
    from keyquorum.model.invitation import Invitation

SUMMARY = "enrol this machine at custodians"
_RENEW = """\
Renew this machine's certificates at its custodians that are in the last third of their time, or over. The TPM's key
signs for it; no invitation is needed. keyquorum-renew.timer does this every day.
"""
_ENROLL = "Enrol this machine at the custodian that FILE invites to. Standard input is read for -."


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    enroll = verbs.add_parser("enroll", help="enrol this machine at a custodian", description=_ENROLL)
    enroll.add_argument("--invitation", required=True, metavar="FILE", help="what the custodian's operator gave you")
    enroll.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where the custodian is, HOST:PORT or vsock:CID:PORT; up to 8 times; default: its id, port 8443",
    )
    shell.add_answers(enroll)
    shell.add_json(enroll)
    renew = verbs.add_parser("renew", help="renew certificates in time", description=_RENEW)
    shell.add_answers(renew)
    shell.add_json(renew)
    show = verbs.add_parser("show", help="show this machine's endorsement key and its custodians")
    shell.add_answers(show)
    shell.add_json(show)


def run(arguments: Namespace) -> int:
    """Do one of the three."""
    return {"enroll": _enroll, "renew": _renew, "show": _show}[arguments.action](arguments)


def _enroll(arguments: Namespace) -> int:
    invitation, machine = read_invitation(arguments.invitation), shell.machine(arguments)
    if arguments.address:
        given = Fields({"--address": arguments.address}, "machine enroll", MalformedError)
        invitation = invitation.with_(addresses=network_address.take(given, "--address"))
    owner, fresh = owner_key.load_or_create(machine.settings.owner_key)
    if fresh:
        machine.tell(f"made this machine's owner key, {machine.settings.owner_key}; keep a copy in a safe place")
    known = enroll_machine(machine, owner, invitation)
    speech.note(f"this machine is enrolled at {invitation.custodian} as {known.machine}")
    if arguments.json:
        row = {"version": 1, "command": "machine enroll", "custodian": invitation.custodian}
        shell.say_json(row | {"machine": known.machine, "exit_code": 0})
    return 0


def _renew(arguments: Namespace) -> int:
    machine = shell.machine(arguments)
    enrolled = os.path.exists(machine.tuning.machine)
    renewed, problems = renew_machine(machine) if enrolled else ((), ())
    for problem in problems:
        speech.fail(problem)
    if renewed:
        speech.note(f"renewed at {', '.join(renewed)}")
    if machine_file.image_due(machine.tuning.machine):
        _rebuild(machine)
    code = problems[0].exit_code if problems else 0
    if arguments.json:
        row: dict[str, object] = {"version": 1, "command": "machine renew", "renewed": list(renewed)}
        shell.say_json(row | {"problems": [problem.message for problem in problems], "exit_code": code})
    elif not renewed and not problems:
        speech.say("no certificate is due" if enrolled else "this machine is enrolled at no custodian")
    return code


def _rebuild(machine: Machine) -> None:
    """Have the boot image know the new certificates, if it shows them; what fails now is done by the next renewal."""
    with machine_file.alone(machine.tuning.machine):
        try:
            names = os.listdir(machine.settings.volumes)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise UsageError(f"{machine.settings.volumes} cannot be read: {error.strerror}") from None
        if any(_shown_at_boot(name.removesuffix(".json"), machine) for name in names if name.endswith(".json")):
            machine.tell("rebuilding the initramfs, which shows them at boot")
            boot_image.rebuild()
        machine_file.forget_image(machine.tuning.machine)


def _shown_at_boot(uuid: str, machine: Machine) -> bool:
    """Say whether a boot asks custodians for this volume; one that cannot be read now may be there at the next boot."""
    if not boot_image.opens_at_boot(uuid):
        return False
    try:
        with copy_header(block.resolve(f"UUID={uuid}")) as header:
            placements = verify_enrolment(header, machine.settings.volumes).volume_set.placements
    except KeyquorumError:
        return True
    return any(placement.kind in REMOTE for placement in placements)


def _show(arguments: Namespace) -> int:
    tuning = shell.machine(arguments).tuning
    endorsement = key_hash(tpm_public.parse(machine_keys.read_attested(tuning).ek, "the endorsement key")).hex()
    try:
        custodians = load_identity(tuning.machine).custodians
    except UnavailableError:
        custodians = ()
    if arguments.json:
        rows = [
            {
                "custodian": name,
                "machine": known.machine,
                "addresses": [str(at) for at in known.addresses],
                "expires": known.expires,
            }
            for name, known in custodians
        ]
        outcome = {"version": 1, "command": "machine show", "endorsement_key": endorsement, "custodians": rows}
        shell.say_json(outcome | {"exit_code": 0})
        return 0
    speech.say(f"endorsement key {endorsement}")
    for name, known in custodians:
        until = time.strftime(", until %Y-%m-%d", time.gmtime(known.expires)) if known.expires else ""
        speech.say(f"{name}: as {known.machine}, at {', '.join(map(str, known.addresses))}{until}")
    return 0


def read_invitation(path: str) -> Invitation:
    """Read an invitation, from standard input for -; raises `UsageError` or `MalformedError`."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(invitations.MAX_FILE + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(invitations.MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return invitations.parse(data, path)
