# SPDX-License-Identifier: Apache-2.0
"""An enrolment from beginning to end, in the order of docs/enrolment.md §1.

At every instant the volume opens as it did before, or by the new set (I6): nothing that exists is changed until the
token is written, which is one atomic act of libcryptsetup, and no keyslot is ever removed.
"""

from __future__ import annotations

from keyquorum.enroll import seal
from keyquorum.enroll.plan import Plan, make_plan
from keyquorum.enroll.preconditions import check_header
from keyquorum.enroll.prove import prove
from keyquorum.envelope import dsse, wrapping
from keyquorum.errors import KeyquorumError
from keyquorum.linux import atomic_file, luks_admin
from keyquorum.linux.private_header import copy_header
from keyquorum.model.anchor import Anchor
from keyquorum.model.token import Token
from keyquorum.secret import KeyEncryptionKey
from keyquorum.unlock.verified_set import Enrolment, anchor_path, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.enroll.request import Request
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.volume_set import VolumeSet
    from keyquorum.secret import VolumeKey

_PLACEHOLDER = {"disk": "0" * 32, "identity": "0" * 44}  # as large as what a holder with an envelope gives back


def enroll(request: Request, header: Header, volume_key: VolumeKey) -> VolumeSet:
    """Put a volume under the policy's quorum; return the committed set.

    `header` is open for writing, `volume_key` was verified against it. On any failure the fragments written so far
    are taken back and the volume is as it was.
    """
    descriptor = check_header(header)
    plan = make_plan(request, descriptor, volume_key)
    keyslot, committed, wheres = -1, False, dict[int, "dict[str, Any]"]()
    try:
        seal.into_key_holders(plan, wheres)
        _check_room(plan, wheres)
        seal.into_envelope_holders(plan, wheres)
        keyslot = _add_keyslot(plan, header)
        volume_set = plan.volume_set(wheres, keyslot)
        enrolment, token = _assemble(plan, volume_set)
        prove(plan, enrolment)
        _write_anchor(request, volume_set)
        request.tell("writing the LUKS2 token")
        luks_admin.set_token(header, token.to_json())
        committed = True
    finally:
        if not committed:
            _take_back(plan, header, wheres, keyslot)
        plan.close()
    request.tell("reading the token back")
    with copy_header(request.device, request.header) as copy:
        verify_enrolment(copy, request.settings.volumes)
    seal.retire_leftovers(request, volume_set)
    return volume_set


def _check_room(plan: Plan, wheres: dict[int, dict[str, Any]]) -> None:
    """Write the token into a private copy of the header first: a full token area is found before a disk is written."""
    request = plan.request
    filled = {planned.spec.index: wheres.get(planned.spec.index, _PLACEHOLDER) for planned in plan.fragments}
    _, token = _assemble(plan, plan.volume_set(filled, -1))
    with copy_header(request.device, request.header) as copy:
        luks_admin.set_token(copy, token.to_json())


def _add_keyslot(plan: Plan, header: Header) -> int:
    if not plan.request.with_keyslot or not isinstance(plan.secret, KeyEncryptionKey):
        return -1
    plan.request.tell("adding the keyslot")
    with wrapping.keyslot_passphrase(plan.secret) as passphrase:
        return luks_admin.add_keyslot(header, plan.volume_key, passphrase, cheap=True)


def _assemble(plan: Plan, volume_set: VolumeSet) -> tuple[Enrolment, Token]:
    """Sign the set; return it as an unlock would find it, and as the token to write."""
    owner = plan.request.owner
    envelopes = {
        str(planned.spec.index): planned.envelope for planned in plan.fragments if not seal.keeps_envelope(planned)
    }
    keyslots = (str(volume_set.keyslot),) if volume_set.keyslot >= 0 else ()
    token = Token(volume_set=owner.sign(dsse.SET_TYPE, volume_set.payload()), fragments=envelopes, keyslots=keyslots)
    enrolment = Enrolment(volume_set=volume_set, owners=(owner.public,), envelopes=envelopes, token_number=-1)
    return enrolment, token


def _write_anchor(request: Request, volume_set: VolumeSet) -> None:
    anchor = Anchor(volume=volume_set.volume, owners=(request.owner.public.raw,), epoch=volume_set.epoch)
    path = anchor_path(volume_set.volume, request.settings.volumes)
    atomic_file.write(path, anchor.to_json() + b"\n", 0o644)


def _take_back(plan: Plan, header: Header, wheres: dict[int, dict[str, Any]], keyslot: int) -> None:
    """Undo what a failed enrolment left with holders and in the header; what cannot be undone is told."""
    request = plan.request
    filled = {planned.spec.index: wheres.get(planned.spec.index, _PLACEHOLDER) for planned in plan.fragments}
    seal.erase_fragments(request, plan.volume_set(filled, -1), wheres.keys())
    if keyslot >= 0:
        try:
            luks_admin.remove_keyslot(header, keyslot)
        except KeyquorumError as error:
            request.warn(f"keyslot {keyslot} was added and cannot be removed: {error.message}")
