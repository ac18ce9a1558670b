# SPDX-License-Identifier: Apache-2.0
"""Taking a volume out of its quorum: afterwards it is a plain LUKS2 volume again (docs/enrolment.md §6)."""

from __future__ import annotations

from keyquorum.enroll import seal
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import atomic_file, luks_admin
from keyquorum.model import header as headers
from keyquorum.model import token as tokens
from keyquorum.unlock.verified_set import anchor_path, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.request import Machine
    from keyquorum.linux.cryptsetup import Header


def other_keyslots(header: Header) -> list[str]:
    """Return the keyslots by which the volume still opens without keyquorum."""
    metadata = header.metadata()
    found = tokens.find(headers.tokens(metadata))
    ours = set(found[1].get("keyslots") or ()) if found else set()
    return [number for number in headers.keyslots(metadata) if number not in ours]


def unenroll(machine: Machine, header: Header) -> None:
    """Remove token, keyslot, anchor and fragments, in the order in which a power cut does least harm.

    The token goes first: from then on the volume opens by its passphrases only, and what is left is waste. Raises
    `UsageError` when the volume is not enrolled.
    """
    found = tokens.find(headers.tokens(header.metadata()))
    if found is None:
        raise UsageError(f"{header.data_path} is not enrolled")
    number, table = found
    try:
        volume_set = verify_enrolment(header, machine.settings.volumes).volume_set
    except KeyquorumError as error:
        machine.warn(f"its fragments are left where they are: {error.message}")
        volume_set = None
    machine.tell("removing the LUKS2 token")
    luks_admin.remove_token(header, number)
    for keyslot in table.get("keyslots") or ():
        machine.tell(f"removing keyslot {keyslot}")
        luks_admin.remove_keyslot(header, int(keyslot))
    if volume_set is not None:
        seal.erase_fragments(machine, volume_set, {placement.index for placement in volume_set.placements})
    atomic_file.remove(anchor_path(header.uuid, machine.settings.volumes))
