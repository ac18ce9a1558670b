# SPDX-License-Identifier: Apache-2.0
"""Put an existing LUKS2 volume under a quorum.

The volume may be open and in use, the running root included. Its passphrases keep working: no keyslot is removed.
A new key-encryption key is split along the policy, every fragment is read back from its holder, the key is rebuilt
from them, and only then the token is written into the LUKS2 header.

for example:
  keyquorum enroll /dev/vda2 --policy policy.toml
  keyquorum enroll /dev/vdb --policy policy.toml --key-file /root/data.key --yes --json
  keyquorum enroll /dev/vdb --custodian invitation.json
"""

from __future__ import annotations

import os
import sys
from functools import partial

from keyquorum import speech
from keyquorum.cli import custodian_invited, custodian_papers, shell
from keyquorum.cli import policy as policies
from keyquorum.cli.machine import read_invitation
from keyquorum.enroll import preconditions
from keyquorum.enroll.request import Request
from keyquorum.enroll.story import enroll
from keyquorum.errors import UsageError
from keyquorum.linux import atomic_file, block, boot_image, luks_admin, owner_key
from keyquorum.linux.volume_lock import exclusive
from keyquorum.model import explain, placement
from keyquorum.model.policy_warnings import cautions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ActionsContainer
    from collections.abc import Callable

    from keyquorum.enroll.request import Machine
    from keyquorum.envelope.signing import Owner
    from keyquorum.holders.contract import Papers
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.policy import Policy
    from keyquorum.model.volume_set import VolumeSet
    from keyquorum.secret import VolumeKey

    Laid = tuple[tuple[str, Papers], ...]

SUMMARY = "put an existing LUKS2 volume under a quorum"


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    shell.add_device(parser)
    under = parser.add_mutually_exclusive_group(required=True)
    add_policy(under)
    under.add_argument(
        "--custodian",
        default="",
        metavar="INVITATION",
        help="instead of a policy: this machine's TPM and the custodian that invites it, both; the machine is enrolled"
        " there if it is not yet",
    )
    add_enrolment(parser)
    shell.add_key_sources(parser)


def add_policy(parser: _ActionsContainer, *, required: bool = False) -> None:
    """Declare --policy."""
    parser.add_argument(
        "--policy", required=required, default="", metavar="FILE", help="the policy (see keyquorum policy check)"
    )


def add_enrolment(parser: ArgumentParser) -> None:
    """Declare what `enroll` and `create` share."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--direct", action="store_true", help="split the volume key itself, without a key-encryption key")
    mode.add_argument(
        "--with-keyslot",
        action="store_true",
        help="also add a keyslot that the fragments open, for tools that know nothing of keyquorum",
    )
    parser.add_argument("--sheet-dir", default="", metavar="DIR", help="write recovery sheets into DIR, mode 0600")
    parser.add_argument("--no-boot-image", action="store_true", help="do not rebuild the initramfs")
    shell.add_answers(parser)
    shell.add_yes(parser)
    shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Enrol."""
    invitation = read_invitation(arguments.custodian) if arguments.custodian else None
    policy = custodian_invited.policy(invitation) if invitation else policies.load_policy(arguments.policy)
    machine = shell.machine(arguments)
    device = block.resolve(arguments.device)
    with luks_admin.open_header(device, arguments.header) as header, exclusive(header.uuid):
        header.load()  # again: another process may have changed it before the lock was ours
        preconditions.check_header(header)
        preconditions.refuse_circles(policy, header.uuid)
        placement.refuse(policy, arguments.policy)
        if invitation is None:
            custodian_papers.refuse_unreadable(policy, header.uuid)
        explain_policy(policy, device)
        if not arguments.yes:
            shell.confirm(f"Enrol {device}?")
        with shell.obtain_volume_key(header, arguments, machine) as volume_key:
            lay_down = partial(custodian_invited.sign, invitation, machine, header.uuid) if invitation else None
            enrolled = enrol_volume(arguments, machine, policy, header, volume_key, lay_down=lay_down)
    finish(arguments, device, enrolled)
    return 0


def explain_policy(policy: Policy, device: str) -> None:
    """Say what the policy means for the volume at `device`, and what to think about twice."""
    meaning = explain.analyse(policy)
    for line in explain.sentences(meaning):
        speech.note(line)
    for caution in cautions(meaning):
        speech.warn(caution.message)
    preconditions.warn_of_shared_drives(policy, device, speech.warn)


def enrol_volume(
    arguments: Namespace,
    machine: Machine,
    policy: Policy,
    header: Header,
    volume_key: VolumeKey,
    *,
    lay_down: Callable[[Owner], Laid] | None = None,
) -> VolumeSet:
    """Enrol a volume whose header is open and whose key is known.

    `lay_down` signs what custodians get; by default that is what the files of the policy say.
    """
    owner, fresh = owner_key.load_or_create(machine.settings.owner_key)
    if fresh:
        machine.tell(f"made this machine's owner key, {machine.settings.owner_key}; keep a copy in a safe place")
    request = Request(
        **{name: getattr(machine, name) for name in machine._fields},
        device=header.data_path,
        header=arguments.header,
        policy=policy,
        kem=preconditions.choose_kem(policy, header, machine.warn),
        direct=arguments.direct,
        with_keyslot=arguments.with_keyslot,
        owner=owner,
        show=_sheets(arguments.sheet_dir),
        papers=lay_down(owner) if lay_down else custodian_papers.sign(policy, owner),
    )
    return enroll(request, header, volume_key)


def finish(arguments: Namespace, device: str, enrolled: VolumeSet, command: str = "enroll") -> None:
    """Rebuild the boot image if the volume is opened there, and say what was done."""
    in_image = boot_image.opens_at_boot(enrolled.volume)
    if in_image and not arguments.no_boot_image:
        speech.note("rebuilding the initramfs, so that the next boot knows this volume's owner")
        boot_image.rebuild()
    speech.note(f"{device} is enrolled" + ("; its passphrases keep working" if command == "enroll" else ""))
    if in_image and arguments.no_boot_image:
        speech.note("  before the next boot: update-initramfs -u")
    speech.note(f"  see what its holders say: keyquorum check {device}")
    if arguments.json:
        shell.say_json(
            {
                "version": 1,
                "command": command,
                "device": device,
                "volume": enrolled.volume,
                "set": enrolled.set_id.hex(),
                "epoch": enrolled.epoch,
                "mode": enrolled.mode,
                "keyslot": enrolled.keyslot,
                "fragments": [{"index": p.index, "name": p.name, "kind": p.kind} for p in enrolled.placements],
                "exit_code": 0,
            }
        )


class _sheets:  # noqa: N801 (called like a function by the holder)
    """Prints a recovery sheet on standard output, or writes it into a directory as sheet-N.txt."""

    def __init__(self, directory: str) -> None:
        self._directory, self._count = directory, 0
        if directory and not os.path.isdir(directory):
            raise UsageError(f"--sheet-dir {directory} is no directory")
        if not directory and not sys.stdout.isatty():
            self._refuse = "a recovery sheet is a secret: give --sheet-dir, or run this on a terminal"
        else:
            self._refuse = ""

    def __call__(self, sheet: str) -> None:
        self._count += 1
        if self._refuse:
            raise UsageError(self._refuse)
        if self._directory:
            path = os.path.join(self._directory, f"sheet-{self._count}.txt")
            if os.path.lexists(path):
                raise UsageError(
                    f"{path} is there already: it may be the only copy of another volume's sheet",
                    "move it away, or give another --sheet-dir",
                )
            atomic_file.write(path, sheet.encode())
            speech.note(f"  the recovery sheet is in {path}: print it, then destroy the file")
        else:
            speech.say_text(sheet)
