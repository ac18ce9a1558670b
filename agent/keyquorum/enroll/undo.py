# SPDX-License-Identifier: Apache-2.0
"""Taking back what a failed enrolment left: fragments, keyslot, trust anchor (docs/enrolment.md §1)."""

from __future__ import annotations

import os

from keyquorum.enroll import seal
from keyquorum.errors import KeyquorumError
from keyquorum.linux import atomic_file, block, luks_admin
from keyquorum.unlock.verified_set import anchor_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.enroll.plan import Plan, PlannedFragment
    from keyquorum.linux.cryptsetup import Header


class Undo:
    """What an enrolment has done so far. `anchor_before` is None until the anchor is written, b"" if it is new."""

    def __init__(self) -> None:
        self.wheres: dict[int, dict[str, Any]] = {}
        self.keyslot = -1
        self.anchor_before: bytes | None = None
        self.committed = False


def take_back(plan: Plan, header: Header, done: Undo) -> None:
    """Undo it all; what cannot be undone is told."""
    request = plan.request
    if done.wheres:
        request.tell("taking back what was written")
    volume_set = plan.volume_set(expected_wheres(plan, done.wheres), -1)
    seal.erase_fragments(request, volume_set, done.wheres.keys())
    if done.keyslot >= 0:
        try:
            luks_admin.remove_keyslot(header, done.keyslot)
        except KeyquorumError as error:
            request.warn(f"keyslot {done.keyslot} was added and cannot be removed: {error.message}")
    if done.anchor_before is not None:
        path = anchor_path(volume_set.volume, request.settings.volumes)
        try:
            if done.anchor_before:
                atomic_file.write(path, done.anchor_before, 0o644)
            else:
                atomic_file.remove(path)
        except KeyquorumError as error:
            request.warn(f"the trust anchor stays: {error.message}")


def expected_wheres(plan: Plan, wheres: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return what each holder gave back, or for one that has not been asked yet what it will give, in size."""
    return {planned.spec.index: wheres.get(planned.spec.index) or _placeholder(planned) for planned in plan.fragments}


def _placeholder(planned: PlannedFragment) -> dict[str, Any]:
    """Return a table as large as that of a fragment disk, the one kind of holder that is written last."""
    where = {"disk": "0" * 32, "identity": "0" * 44}
    device = block.resolve(planned.spec.options.device) if planned.spec.kind == "disk" else ""
    return where | ({"path": os.path.realpath(device)} if os.path.isfile(device) else {})
