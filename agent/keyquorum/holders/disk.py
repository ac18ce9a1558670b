# SPDX-License-Identifier: Apache-2.0
"""Holder `disk`: a small attached disk or partition keeps the envelope (docs/holders-disk.md).

The identity that opens the envelope is in the signed set in the volume's header: whoever has only the fragment disk
has nothing, and whoever has only the volume lacks the envelope.
"""

from __future__ import annotations

import os

from keyquorum.errors import HolderError, RefusedError, TamperingError
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.linux import block, fragment_disk
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment_disk import Entry
from keyquorum.secret import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from keyquorum.holders.contract import Subject
    from keyquorum.model.fragment_disk import SlotHeader

_ENROL_AGAIN = "enrol again to write the fragment anew; until then the other holders open the volume"


class DiskHolder:
    """See the contract in `holders.contract`."""

    keeps_envelope = True

    def needs_person(self, _where: Mapping[str, Any]) -> bool:
        """A disk asks nothing."""
        return False

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Add the envelope to the disk's catalogue."""
        path = block.resolve(task.options.device)
        header, _ = fragment_disk.read(path)
        subject = task.subject
        added = Entry(
            volume=subject.volume,
            set_id=subject.set_id,
            epoch=subject.epoch,
            index=subject.index,
            envelope=task.envelope,
        )
        fragment_disk.change(
            path, lambda entries: (*(e for e in entries if _place(e) != _place(added)), added), header.disk_id
        )
        where = {"disk": header.disk_id.hex(), "identity": strict_json.to_base64(bytes(task.identity.view))}
        return where | ({"path": os.path.realpath(path)} if os.path.isfile(path) else {})

    def open(self, task: OpenTask) -> Held:
        """Find the disk, whatever it is called today, and read the envelope; a copy that lacks it hides no original."""
        disk_id, identity, paths = _locate(task)
        problem: HolderError | None = None
        for path in paths:
            try:
                envelope = _envelope(path, disk_id, task.subject)
            except HolderError as error:
                problem = problem or error
                continue
            return Held(identity=Identity.from_view(identity), envelope=envelope)
        assert problem is not None  # no path at all is an error of its own
        raise problem

    def erase(self, task: OpenTask) -> None:
        """Remove this set's fragments of the volume from the disk."""
        self._drop(task, lambda entry: entry.set_id == task.subject.set_id)

    def retire(self, task: OpenTask) -> None:
        """Remove what other sets of the volume left on the disk."""
        self._drop(task, lambda entry: entry.set_id != task.subject.set_id)

    def _drop(self, task: OpenTask, unwanted: Any) -> None:
        disk_id, _, paths = _locate(task)
        volume = task.subject.volume
        fragment_disk.change(
            next(paths), lambda entries: tuple(e for e in entries if e.volume != volume or not unwanted(e)), disk_id
        )


def _envelope(path: str, disk_id: bytes, subject: Subject) -> Any:
    """Return a fragment's envelope from the disk at `path`; raises `HolderError`."""
    header, entries = fragment_disk.read(path, disk_id)
    wanted = (subject.volume, subject.set_id, subject.index)
    for entry in entries:
        if _place(entry) == wanted:
            return entry.envelope
    raise _lacks_fragment(path, header, entries, subject.volume)


def _lacks_fragment(path: str, header: SlotHeader, entries: tuple[Entry, ...], volume: str) -> RefusedError:
    """Return the refusal that says what the disk holds instead, and whether it is damaged."""
    others = any(entry.volume == volume for entry in entries)
    what = (
        "only fragments of another set of this volume" if others else f"{len(entries)} fragments, none of this volume"
    )
    message = f"disk {fragment_disk.show_id(header.disk_id)} at {path} holds {what}"
    if fragment_disk.damaged_slots(path):
        return RefusedError(f"{message}, and one of its two slots is damaged", _ENROL_AGAIN, tampered=others)
    return RefusedError(message, tampered=others)


def _place(entry: Entry) -> tuple[str, bytes, int]:
    return entry.volume, entry.set_id, entry.index


def _locate(task: OpenTask) -> tuple[bytes, bytes, Iterator[str]]:
    """Return disk id, identity and paths. Only a disk that is a file has a path of its own, devices are looked for."""
    fields = Fields(task.where, "set", TamperingError, "where")
    disk_id, identity = fields.hexadecimal("disk", 16), fields.data("identity", size=32)
    file = fields.text("path", longest=4096, default="-").removeprefix("-")
    fields.finish()
    return disk_id, identity, iter((file,)) if file else block.fragment_disks(disk_id, task.deadline)


HOLDER = DiskHolder()
