# SPDX-License-Identifier: Apache-2.0
"""A custodian to try out, on the machine that is its client (docs/custodian.md §11.2): what `init --trial` fills in."""

from __future__ import annotations

import os
import shlex
import socket

from keyquorum import speech
from keyquorum.errors import KeyquorumError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.custodian.site import Site
    from keyquorum.custodian.site_settings import SiteSettings
    from keyquorum.custodian.store_enrolment import Offer
    from keyquorum.holders.contract import Tuning

_LISTEN = "127.0.0.1:8443"


def configure(parser: ArgumentParser) -> None:
    """Declare --trial."""
    parser.add_argument(
        "--trial",
        default="",
        metavar="FILE",
        help="make a custodian for this machine alone, to try it out: on the loopback, without witnesses; write an"
        " invitation for this machine into FILE",
    )


def settle(arguments: Namespace) -> None:
    """Fill in what a trial needs and was not said; raises `UsageError`."""
    if not arguments.trial:
        if not arguments.origin:
            raise UsageError("--origin names the custodian", "to try one out on this machine: --trial FILE")
        return
    if os.path.lexists(arguments.trial):
        raise UsageError(f"{arguments.trial} is there already", "name another file: no invitation is overwritten")
    directory = os.path.dirname(arguments.trial) or "."
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is no directory", "name a file in a directory that is there")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{arguments.trial} cannot be written in {directory}", "name a file in another directory")
    if arguments.witness:
        raise UsageError("a trial has no witnesses")
    # Each trial is another custodian: a machine would not take a new one for one that it knows.
    arguments.origin = arguments.origin or f"trial-{os.urandom(4).hex()}.localhost"
    arguments.listen = arguments.listen or [_LISTEN]
    arguments.unsafe_without_witnesses = True


def endorsement_key(tuning: Tuning) -> bytes:
    """Return the SHA-256 of this machine's own endorsement key, for which its operator vouches by being here."""
    from keyquorum.evidence import tpm_public
    from keyquorum.evidence.ek_certificate import key_hash
    from keyquorum.holders import machine_keys

    return key_hash(tpm_public.parse(machine_keys.read_attested(tuning).ek, "the endorsement key"))


def invite(arguments: Namespace, site: Site, settings: SiteSettings, listed_ek: bytes) -> None:
    """Offer this machine an enrolment, and write the invitation."""
    from contextlib import closing

    from keyquorum.cli import custodian_operate
    from keyquorum.custodian.store_enrolment import Offer
    from keyquorum.linux import atomic_file
    from keyquorum.model import strict_json

    offered = Offer(machine=socket.gethostname()[:64] or "this-machine", labels={}, listed_ek=listed_ek)
    places = [str(address) for address in settings.listen]
    try:
        with closing(site.open_store(settings)) as store:
            outcome = custodian_operate.offer(arguments, site, settings, store, offered=offered, addresses=places)
        table = {"version": 1, "command": "custodian enroll-machine", **outcome, "exit_code": 0}
        if not atomic_file.create(arguments.trial, strict_json.serialise(table) + b"\n"):
            raise UsageError(f"{arguments.trial} is there already")
    except KeyquorumError as error:
        error.hint = _another_invitation(site, offered, places)
        raise
    speech.warn("this custodian is for trial: whoever has this machine has it, and no witness knows its log")
    speech.note(f"{arguments.trial} invites {offered.machine} for an hour; its token is a secret, and good once")
    speech.note(f"  keyquorum custodian serve --directory {site.directory}")
    speech.note(f"  keyquorum enroll DEVICE --custodian {arguments.trial}")


def _another_invitation(site: Site, offered: Offer, places: list[str]) -> str:
    """Say how the custodian, which is there by now, gives the invitation that could not be written."""
    words = ["keyquorum custodian enroll-machine", shlex.quote(offered.machine), "--ek", offered.listed_ek.hex()]
    words += [word for place in places for word in ("--address", place)]
    words += ["--directory", shlex.quote(site.directory), "--json"]
    return f"the custodian is made; keep what this prints as the invitation, which is a secret: {' '.join(words)}"
