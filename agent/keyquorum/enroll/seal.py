# SPDX-License-Identifier: Apache-2.0
"""Step 3: hand each fragment to its holder (docs/enrolment.md §4).

Holders that keep a key come first: they change nothing outside the machine, so a PIN typed wrong or a token area that
is full ends the enrolment before any disk is written.
"""

from __future__ import annotations

import time

from keyquorum.enroll.uninterrupted import uninterrupted
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.holders import REMOTE, load
from keyquorum.holders.contract import SealTask, Subject, open_task
from keyquorum.linux import owner_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from keyquorum.enroll.plan import Plan, PlannedFragment
    from keyquorum.enroll.request import Machine, Request
    from keyquorum.envelope.signing import Owner
    from keyquorum.model.volume_set import VolumeSet


def keeps_envelope(planned: PlannedFragment) -> bool:
    """Say whether the fragment's envelope lies with its holder and not in the token."""
    return load(planned.spec.kind).keeps_envelope


def into_key_holders(plan: Plan, wheres: dict[int, dict[str, Any]]) -> None:
    """Seal with TPM, tokens and people; `wheres` is filled as they are done."""
    for planned in plan.fragments:
        if not keeps_envelope(planned):
            _seal(plan, planned, wheres)


def into_envelope_holders(plan: Plan, wheres: dict[int, dict[str, Any]]) -> None:
    """Write envelopes to fragment disks; two holders that turn out to be one disk are refused."""
    disks: dict[str, str] = {}
    for planned in plan.fragments:
        if keeps_envelope(planned):
            with uninterrupted():  # written and not noted, it would not be taken back
                _seal(plan, planned, wheres)
            spec = planned.spec
            same = disks.setdefault(wheres[spec.index]["disk"], spec.holder)
            if same != spec.holder:
                raise UsageError(
                    f"{same} and {spec.holder} are the same disk", "name another disk, or let one holder stand for both"
                )


def _seal(plan: Plan, planned: PlannedFragment, wheres: dict[int, dict[str, Any]]) -> None:
    request, spec = plan.request, planned.spec
    request.tell(f"fragment {spec.index} of {len(plan.fragments)}: {spec.name} ({spec.kind})")
    subject = Subject(
        volume=plan.descriptor.uuid, set_id=plan.set_id, epoch=plan.epoch, index=spec.index, name=spec.name
    )
    task = SealTask(
        subject=subject,
        identity=planned.identity,
        envelope=planned.envelope,
        options=spec.options,
        answers=request.answers,
        tuning=request.tuning,
        show=request.show if spec.kind == "sheet" else request.warn,  # other kinds show no secret, but warnings
        owner=request.owner,
        papers=dict(request.papers).get(spec.holder),
    )
    try:
        wheres[spec.index] = load(spec.kind).seal(task)
    except KeyquorumError as error:
        error.message = f"{spec.name} ({spec.kind}) takes no fragment: {error.message}"
        raise


def retire_leftovers(request: Request, volume_set: VolumeSet) -> None:
    """Remove what interrupted enrolments of this volume left with its holders; failing to is only told."""
    for placement in volume_set.placements:
        deadline = time.monotonic() + request.settings.holder_timeout
        try:
            load(placement.kind).retire(open_task(volume_set, placement, request.answers, request.tuning, deadline))
        except KeyquorumError as error:
            request.warn(f"{placement.name} may still hold fragments of an earlier enrolment: {error.message}")


def erase_fragments(machine: Machine, volume_set: VolumeSet, indexes: Collection[int]) -> None:
    """Take fragments back from their holders; failing to is only told, they open nothing without the token."""
    for placement in volume_set.placements:
        if placement.index not in indexes:
            continue
        remote = placement.kind in REMOTE
        seconds = machine.settings.custodian_timeout if remote else machine.settings.holder_timeout
        task = open_task(volume_set, placement, machine.answers, machine.tuning, time.monotonic() + seconds)
        try:
            load(placement.kind).erase(task.with_(owner=_owner(machine)) if remote else task)
        except KeyquorumError as error:
            machine.warn(f"{placement.name} keeps a fragment that opens nothing any more: {error.message}")


def _owner(machine: Machine) -> Owner | None:
    """Return who may speak for the volume's deposits; None where the key is kept elsewhere."""
    try:
        return owner_key.load(machine.settings.owner_key)
    except FileNotFoundError:
        return None
