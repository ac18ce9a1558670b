# SPDX-License-Identifier: Apache-2.0
"""What a boot image carries to judge enclaves: policies, roots, collateral (docs/holders-enclave.md §2)."""

from __future__ import annotations

import os

from keyquorum import speech
from keyquorum.errors import KeyquorumError
from keyquorum.holders import custodian_where, enclave_where
from keyquorum.initramfs import hook_list
from keyquorum.linux.collateral_store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.initramfs.wanted import BootVolume
    from keyquorum.model.volume_set import Placement

_MOST_FILES = 64  # of the store: a fleet's whole collateral has no business in one machine's image
_WASTE = (".last", ".new")  # end the names of what a fetch remembers for itself, and of what is half written


def custodian_of(placement: Placement) -> str:
    """Return the id of the custodian or enclave; raises `TamperingError`."""
    if placement.kind == "enclave":
        return enclave_where.parse(placement.where)[0].custodian
    return custodian_where.parse(placement.where).custodian


def announce(volumes: list[BootVolume]) -> None:
    """Print for the hook what to put in for the enclaves of some volumes, and note what is not there."""
    said: set[str] = set()
    for volume in volumes:
        for placement in volume.volume_set.placements:
            if placement.kind == "enclave":
                for line in _lines(volume.name, placement):
                    if line not in said:
                        speech.say(line)
                    said.add(line)


def _lines(volume: str, placement: Placement) -> list[str]:
    try:
        _, attested = enclave_where.parse(placement.where)
    except KeyquorumError as error:
        return [hook_list.note(f"{placement.name} of {volume} will not be believed in the initramfs: {error.message}")]
    store = Store(attested.collateral)
    kept = [os.path.join(attested.collateral, name) for name in store.names() if not name.endswith(_WASTE)]
    found = [_line(path, f"{placement.name} of {volume}") for path in (*attested.files, *kept[:_MOST_FILES])]
    if len(kept) > _MOST_FILES:
        found.append(
            hook_list.note(f"{attested.collateral} has more than {_MOST_FILES} files; the others are left out")
        )
    if attested.test_roots:
        found.append(hook_list.note(f"{placement.name} of {volume} is {enclave_where.LOUD}"))
    return found


def _line(path: str, holder: str) -> str:
    if not os.path.isfile(path):
        return hook_list.note(f"{holder}: there is no {path}")
    return hook_list.file(path, whose=holder)
