# SPDX-License-Identifier: Apache-2.0
"""Taking a volume out of its quorum: afterwards it is a plain LUKS2 volume again (docs/enrolment.md §6)."""

from __future__ import annotations

from keyquorum.enroll import epochs, seal
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import atomic_file, luks_admin
from keyquorum.model import header as headers
from keyquorum.model import token as tokens
from keyquorum.record import Record
from keyquorum.unlock.verified_set import anchor_path, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.request import Machine
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.volume_set import VolumeSet


class Found(Record):
    """What is enrolled on a header: the token's number, and the set if it verifies.

    `listed` are the keyslots that the token claims. The token is not signed, and its keyslots may be anybody's.
    """

    number: int
    listed: frozenset[str]
    volume_set: VolumeSet | None
    problem: str

    @property
    def keyslot(self) -> int:
        """The keyslot that --with-keyslot added: token and signed set must agree on it; -1 for none.

        Whoever removes the keyslot by other means also removes it from the token, and then its number may be taken.
        """
        if self.volume_set is None or str(self.volume_set.keyslot) not in self.listed:
            return -1
        return self.volume_set.keyslot


def find_enrolment(machine: Machine, header: Header) -> Found:
    """Return what is to be taken out; raises `UsageError` when the volume is not enrolled."""
    found = tokens.find(headers.tokens(header.metadata()))
    if found is None:
        raise UsageError(f"{header.data_path} is not enrolled")
    volume_set, problem = None, ""
    try:
        volume_set = verify_enrolment(header, machine.settings.volumes).volume_set
    except KeyquorumError as error:
        problem = error.message
    listed = frozenset(str(keyslot) for keyslot in found[1].get("keyslots") or ())
    return Found(number=found[0], listed=listed, volume_set=volume_set, problem=problem)


def other_keyslots(header: Header, found: Found) -> list[str]:
    """Return the keyslots by which the volume still opens without keyquorum."""
    ours = found.listed if found.volume_set is None else {str(found.keyslot)}
    return [number for number in headers.keyslots(header.metadata()) if number not in ours]


def unenroll(machine: Machine, header: Header, found: Found) -> None:
    """Remove token, keyslot, fragments and anchor, in the order in which a power cut does least harm.

    The token goes first: from then on the volume opens by its passphrases only, and what is left is waste.
    """
    keyslot = found.keyslot
    if found.volume_set is None:
        kept = "its fragments and keyslots are" if found.listed else "its fragments are"
        machine.warn(f"{kept} left where they are: {found.problem}")
    machine.tell("removing the LUKS2 token")
    luks_admin.remove_token(header, found.number)
    if keyslot >= 0:
        machine.tell(f"removing keyslot {keyslot}")
        luks_admin.remove_keyslot(header, keyslot)
    if found.volume_set is not None:
        indexes = {placement.index for placement in found.volume_set.placements}
        seal.erase_fragments(machine, found.volume_set, indexes)
    epochs.remember(header.uuid, machine.settings.volumes)
    atomic_file.remove(anchor_path(header.uuid, machine.settings.volumes))
