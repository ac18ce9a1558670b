# SPDX-License-Identifier: Apache-2.0
"""Make a new LUKS2 volume under a quorum. Everything on the device is lost.

The volume gets a large token area and a cheap key digest, so that it opens fast and has room for many fragments.
Unless --no-passphrase is given, a passphrase (typed, or --key-file) gets a keyslot of its own, so that the ordinary
prompt works too.

example: keyquorum create /dev/vdc --policy policy.toml
"""

from __future__ import annotations

import os

from keyquorum.cli import policy as policies
from keyquorum.cli import shell
from keyquorum.cli.enroll import add_enrolment, add_policy, enrol_volume, explain_policy, finish
from keyquorum.errors import MalformedError, UsageError
from keyquorum.linux import block, fragment_disk, luks_admin, private_header
from keyquorum.linux.volume_lock import exclusive
from keyquorum.model import placement
from keyquorum.model.holder_options import CustodianOptions
from keyquorum.native import sodium
from keyquorum.secret import VolumeKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.enroll.request import Machine
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.policy import Policy

SUMMARY = "make a new LUKS2 volume under a quorum"


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("device", metavar="DEVICE", help="the device to format")
    add_policy(parser, required=True)
    add_enrolment(parser)
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--key-file", default="", metavar="FILE", help="the keyslot's passphrase, - for standard input")
    keys.add_argument(
        "--no-passphrase", action="store_true", help="make no keyslot: only the fragments open the volume"
    )


def run(arguments: Namespace) -> int:
    """Create."""
    arguments.header = ""
    policy = policies.load_policy(arguments.policy)
    placement.refuse(policy, arguments.policy)
    _refuse_custodians(policy, arguments.policy)
    machine = shell.machine(arguments)
    device = block.resolve(arguments.device)
    _refuse_valuable(device)
    explain_policy(policy, device)
    if not arguments.yes:
        shell.confirm(f"Everything on {device} will be lost.")
    with sodium.random_secret(VolumeKey, luks_admin.NEW_KEY_SIZE) as volume_key:
        machine.tell(f"formatting {device}")
        luks_admin.format_volume(device, volume_key)
        with luks_admin.open_header(device) as header, exclusive(header.uuid):
            if not arguments.no_passphrase:
                _add_passphrase(arguments, machine, header, volume_key)
            enrolled = enrol_volume(arguments, machine, policy, header, volume_key)
    finish(arguments, device, enrolled, "create")
    return 0


def _refuse_custodians(policy: Policy, what: str) -> None:
    """A release policy names its volumes, and what is to be made has no UUID yet."""
    for spec in policy.holders:
        if isinstance(spec.options, CustodianOptions):
            raise MalformedError(
                what,
                f"holder.{spec.holder}",
                "a custodian's release policy names the volume, which does not exist yet",
                "make the volume with cryptsetup luksFormat, add its UUID to the release policy, then keyquorum enroll",
            )


def _refuse_valuable(device: str) -> None:
    """A LUKS volume or a fragment disk is never formatted by accident, not even with --yes."""
    try:
        luks = private_header.holds_luks(device)
    except OSError as error:
        raise UsageError(f"{device} cannot be opened: {os.strerror(error.errno or 0)}") from None
    if luks:
        raise UsageError(
            f"{device} is a LUKS volume already",
            f"enrol it instead (keyquorum enroll {device}), or wipe it first: cryptsetup erase, wipefs -a",
        )
    if fragment_disk.identify(device) is not None:
        raise UsageError(
            f"{device} is a fragment disk", f"see whose fragments it holds: keyquorum holder list-disk {device}"
        )


def _add_passphrase(arguments: Namespace, machine: Machine, header: Header, volume_key: VolumeKey) -> None:
    if arguments.key_file:
        passphrase = shell.read_key_file(arguments.key_file)
    else:
        passphrase = machine.answers.ask_new("volume", f"a passphrase for {header.data_path}")
    with passphrase:
        luks_admin.add_keyslot(header, volume_key, passphrase, cheap=False)
