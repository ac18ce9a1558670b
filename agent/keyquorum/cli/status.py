# SPDX-License-Identifier: Apache-2.0
"""Show what is enrolled on this machine, or one volume's set, and how it was last opened.

Asks no holder (keyquorum check does). The set is shown only as far as its owner's signature is right.

for example:
  keyquorum status
  keyquorum status /dev/vda2 --json
"""

from __future__ import annotations

import os
import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.daemon import boot_reports
from keyquorum.errors import KeyquorumError, MalformedError
from keyquorum.holders import enclave_where, machine_certificates
from keyquorum.linux import block, boot_record
from keyquorum.linux.private_header import copy_header
from keyquorum.model import tree
from keyquorum.settings import load
from keyquorum.unlock.verified_set import verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from keyquorum.model.volume_set import Placement
    from keyquorum.settings import Settings

SUMMARY = "show what is enrolled here and how it was opened"


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "device", metavar="DEVICE", nargs="?", default="", help="one volume; default: all of this machine"
    )
    parser.add_argument("--header", default="", metavar="FILE", help="the detached LUKS2 header")
    shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Show."""
    settings = load()
    machine_certificates.warn(settings.machine, int(time.time()), speech.warn)
    if arguments.device:
        volumes = [_one(block.resolve(arguments.device), arguments.header, settings)]
    else:
        volumes = [_tried(f"/dev/disk/by-uuid/{uuid}", uuid, settings) for uuid in _anchored(settings)]
    if arguments.json:
        shell.say_json({"version": 1, "command": "status", "volumes": volumes, "exit_code": 0})
        return 0
    if not volumes:
        speech.say("no volume is enrolled on this machine")
    for volume in volumes:
        for line in _lines(volume):
            speech.say(line)
    return 0


def _anchored(settings: Settings) -> list[str]:
    try:
        names = os.listdir(settings.volumes)
    except OSError:
        return []
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _tried(device: str, uuid: str, settings: Settings) -> dict[str, Any]:
    try:
        return _one(device, "", settings)
    except KeyquorumError as error:
        return {"volume": uuid, "device": device, "error": error.message}


def _one(device: str, header_device: str, settings: Settings) -> dict[str, Any]:
    with copy_header(device, header_device) as header:
        volume_set = verify_enrolment(header, settings.volumes).volume_set
    return {
        "volume": volume_set.volume,
        "device": os.path.realpath(device),
        "set": volume_set.set_id.hex(),
        "epoch": volume_set.epoch,
        "mode": volume_set.mode,
        "issued": volume_set.issued,
        "keyslot": volume_set.keyslot,
        "measure_pcr": volume_set.measure_pcr,
        "policy": tree.to_json(volume_set.policy),
        "fragments": [{"index": p.index, "name": p.name, "kind": p.kind} for p in volume_set.placements],
        "test_roots": [p.name for p in volume_set.placements if _by_test_roots(p)],
        "last_unlock": _last_unlock(volume_set.volume),
    }


def _by_test_roots(placement: Placement) -> bool:
    return placement.kind == "enclave" and bool(enclave_where.parse(placement.where)[1].test_roots)


def _last_unlock(uuid: str) -> dict[str, Any] | None:
    """Return the report that the last boot-time unlock of this volume left under /run."""
    try:
        names = os.listdir(boot_record.DIRECTORY)
    except OSError:
        return None
    for name in names:
        try:
            report = boot_reports.read(name.removesuffix(".json")) if name.endswith(".json") else None
        except MalformedError:  # of another version
            continue
        if report is not None and report.volume == uuid:
            return report.to_json()
    return None


def _lines(volume: dict[str, Any]) -> list[str]:
    if "error" in volume:
        return [f"{volume['volume']}: {volume['error']}"]
    names = {fragment["index"]: f"{fragment['name']} ({fragment['kind']})" for fragment in volume["fragments"]}
    issued = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(volume["issued"]))
    lines = [
        f"{volume['volume']} on {volume['device']}",
        f"  opens with {_tree_words(volume['policy'], names)}",
        f"  enrolled {issued}, epoch {volume['epoch']}, mode {volume['mode']}",
    ]
    lines += [f"  {name} is {enclave_where.LOUD}" for name in volume["test_roots"]]
    last = volume["last_unlock"]
    if last:
        lines.append(f"  at boot: {last['outcome']}")
        lines += [
            f"    {holder['name']} ({holder['kind']}): {holder['verdict']}"
            + (f": {holder['reason']}" if holder["reason"] else "")
            for holder in last["holders"]
        ]
    return lines


def _tree_words(node: dict[str, Any], names: dict[int, str]) -> str:
    parts = [names[child] if isinstance(child, int) else f"({_tree_words(child, names)})" for child in node["children"]]
    return f"any {node['threshold']} of {', '.join(parts)}"
