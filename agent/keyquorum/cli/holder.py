# SPDX-License-Identifier: Apache-2.0
"""Prepare fragment disks, and see what is on them.

init-disk makes DEVICE a fragment disk: a whole disk gets a GPT with one partition of keyquorum's type, a partition
or a file is used as it is. Whatever was there is lost; a disk that already holds fragments is refused.

for example:
  keyquorum holder init-disk /dev/vdb
  keyquorum holder list-disk /dev/vdb1
"""

from __future__ import annotations

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.linux import block, disk_setup, fragment_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "prepare and look at fragment disks"
_INIT_DISK = "Make DEVICE a fragment disk, and print the line that names it in a policy. Everything on it is lost."


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = verbs.add_parser("init-disk", help="make a device a fragment disk", description=_INIT_DISK)
    init.add_argument("device", metavar="DEVICE", help="a whole disk, a partition or a file of at least 1 MiB")
    init.add_argument("--force", action="store_true", help="even if something is on it already, fragments included")
    shell.add_yes(init)
    shell.add_json(init)
    show = verbs.add_parser("list-disk", help="list the fragments on a fragment disk, without opening them")
    show.add_argument("device", metavar="DEVICE", help="the fragment disk")
    shell.add_json(show)


def run(arguments: Namespace) -> int:
    """Do one of the two."""
    device = block.resolve(arguments.device)
    return _init(device, arguments) if arguments.action == "init-disk" else _list(device, arguments)


def _init(device: str, arguments: Namespace) -> int:
    disk_setup.refuse_unsuitable(device, force=arguments.force)
    if not arguments.yes:
        shell.confirm(f"Everything on {device} will be lost.")
    made = disk_setup.init_disk(device)
    disk_id = fragment_disk.show_id(made.disk_id)
    speech.note(f"{made.path} is fragment disk {disk_id}")
    if arguments.json:
        shell.say_json({"version": 1, "command": "init-disk", "device": made.path, "disk": disk_id, "exit_code": 0})
    else:
        speech.say(f'device = "PARTUUID={disk_id}"' if made.partitioned else f'device = "{made.path}"')
    return 0


def _list(device: str, arguments: Namespace) -> int:
    header, entries = fragment_disk.read(device)
    if arguments.json:
        rows = [{"volume": e.volume, "set": e.set_id.hex(), "epoch": e.epoch, "index": e.index} for e in entries]
        outcome: dict[str, object] = {"version": 1, "command": "list-disk", "device": device, "fragments": rows}
        shell.say_json(outcome | {"disk": fragment_disk.show_id(header.disk_id), "exit_code": 0})
        return 0
    speech.say(f"fragment disk {fragment_disk.show_id(header.disk_id)}, {len(entries)} fragments")
    for entry in entries:
        speech.say(f"  volume {entry.volume}, fragment {entry.index}, epoch {entry.epoch}, set {entry.set_id.hex()}")
    return 0
