# SPDX-License-Identifier: Apache-2.0
"""Take a volume out of its quorum; afterwards it is a plain LUKS2 volume again.

Removes the token, the keyslot that --with-keyslot added, the fragments on attached holders and the trust anchor.
Refused while no other keyslot would open the volume.

example: keyquorum unenroll /dev/vda2
"""

from __future__ import annotations

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.enroll.unenroll import find_enrolment, other_keyslots, unenroll
from keyquorum.enroll.uninterrupted import uninterrupted
from keyquorum.errors import UsageError
from keyquorum.linux import block, boot_image, luks_admin
from keyquorum.linux.volume_lock import exclusive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "take a volume out of its quorum"


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    shell.add_device(parser)
    parser.add_argument("--no-boot-image", action="store_true", help="do not rebuild the initramfs")
    parser.add_argument(
        "--lose-access", action="store_true", help="go on even if no keyslot is left that opens the volume"
    )
    shell.add_answers(parser)
    shell.add_yes(parser)
    shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Unenrol."""
    machine = shell.machine(arguments)
    device = block.resolve(arguments.device)
    with luks_admin.open_header(device, arguments.header) as header, exclusive(header.uuid):
        header.load()  # again: another process may have changed it before the lock was ours
        found = find_enrolment(machine, header)
        if not other_keyslots(header, found) and not arguments.lose_access:
            raise UsageError(
                f"no keyslot of {device} would open it afterwards",
                f"add a passphrase first: keyquorum recover {device} --add-passphrase",
            )
        if not arguments.yes:
            shell.confirm(f"Take {device} out of its quorum?")
        volume = header.uuid
        with uninterrupted():
            unenroll(machine, header, found)
    if boot_image.opens_at_boot(volume) and not arguments.no_boot_image:
        speech.note("rebuilding the initramfs")
        boot_image.rebuild()
    speech.note(f"{device} is a plain LUKS2 volume again")
    if arguments.json:
        shell.say_json({"version": 1, "command": "unenroll", "device": device, "volume": volume, "exit_code": 0})
    return 0
