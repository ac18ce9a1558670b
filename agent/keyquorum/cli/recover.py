# SPDX-License-Identifier: Apache-2.0
"""Regain access to a volume whose usual holders do not reach the quorum.

Asks all holders, and a person for sheets and passphrase fragments until the quorum is there. Then opens the volume
(--name), or adds an ordinary LUKS2 passphrase to it (--add-passphrase), so that it can be repaired and enrolled anew.

for example:
  keyquorum recover /dev/vda2 --name rescue
  keyquorum recover /dev/vda2 --add-passphrase
"""

from __future__ import annotations

import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import UsageError
from keyquorum.linux import block, cryptsetup, luks_admin
from keyquorum.linux.private_header import copy_header
from keyquorum.linux.volume_lock import exclusive
from keyquorum.unlock.arguments import mapping_name
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.open_volume import Mapping, measure, open_volume
from keyquorum.unlock.reconstruct import rebuild_volume_key
from keyquorum.unlock.verified_set import verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.enroll.request import Machine
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.secret import VolumeKey

SUMMARY = "regain access with a sheet or passphrase fragment"
_PATIENCE = 600.0  # seconds for typing a sheet


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    shell.add_device(parser)
    parser.add_argument("--name", default="", help="open the volume as /dev/mapper/NAME")
    parser.add_argument("--add-passphrase", action="store_true", help="add an ordinary LUKS2 passphrase")
    parser.add_argument(
        "--new-key-file", default="", metavar="FILE", help="the passphrase to add, - for standard input"
    )
    shell.add_answers(parser)
    shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Recover."""
    if not arguments.name and not arguments.add_passphrase:
        raise UsageError("say what to do with the volume", "--name NAME opens it, --add-passphrase adds a passphrase")
    if arguments.name:
        mapping_name(arguments.name)
    machine = shell.machine(arguments)
    device = block.resolve(arguments.device)
    with copy_header(device, arguments.header) as header, _recovered_key(machine, header) as volume_key:
        if arguments.name:
            if cryptsetup.is_active(arguments.name):
                raise UsageError(f"/dev/mapper/{arguments.name} exists already")
            volume_set = verify_enrolment(header, machine.settings.volumes).volume_set
            mapping = Mapping(name=arguments.name)
            open_volume(header, volume_set, volume_key, mapping)
            measure(volume_set, volume_key, mapping, machine.settings.tpm_device, speech.warn)
            speech.note(f"{device} is open as /dev/mapper/{arguments.name}")
        if arguments.add_passphrase:
            _add_passphrase(arguments, machine, device, volume_key)
            speech.note(f"{device} has a new passphrase")
    if arguments.json:
        shell.say_json({"version": 1, "command": "recover", "device": device, "name": arguments.name, "exit_code": 0})
    return 0


def _recovered_key(machine: Machine, header: Header) -> VolumeKey:
    enrolment = verify_enrolment(header, machine.settings.volumes)
    context = Context(answers=machine.answers, tuning=machine.tuning, now=machine.now, tell=speech.verdict)
    limits = Limits(
        holder=machine.settings.holder_timeout,
        person=_PATIENCE,
        deadline=time.monotonic() + _PATIENCE,
        custodian=machine.settings.custodian_timeout,
    )
    gathering = Gathering(enrolment, context, limits)
    try:
        gathering.ask_unattended()
        gathering.begin_custodians()
        gathering.ask_person()
        gathering.wait_for_custodians(machine.settings.custodian_timeout)
        return rebuild_volume_key(enrolment.volume_set, gathering.shares)
    finally:
        gathering.close()


def _add_passphrase(arguments: Namespace, machine: Machine, device: str, volume_key: VolumeKey) -> None:
    if arguments.new_key_file:
        passphrase = shell.read_key_file(arguments.new_key_file)
    else:
        passphrase = machine.answers.ask_new("volume", f"a new passphrase for {device}")
    with passphrase, luks_admin.open_header(device, arguments.header) as header, exclusive(header.uuid):
        header.load()  # again: another process may have changed it before the lock was ours
        luks_admin.add_keyslot(header, volume_key, passphrase, cheap=False)
