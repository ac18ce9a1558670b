# SPDX-License-Identifier: Apache-2.0
"""An enrolment from beginning to end, in the order of docs/enrolment.md §1.

At every instant the volume opens as it did before, or by the new set (I6): nothing that exists is changed until the
token is written, which is one atomic act of libcryptsetup, and no keyslot is ever removed.
"""

from __future__ import annotations

from keyquorum.enroll import seal
from keyquorum.enroll.epochs import next_epoch
from keyquorum.enroll.plan import Plan, make_plan
from keyquorum.enroll.preconditions import check_header
from keyquorum.enroll.prove import prove
from keyquorum.enroll.undo import Undo, expected_wheres, take_back
from keyquorum.enroll.uninterrupted import uninterrupted
from keyquorum.envelope import dsse, wrapping
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import atomic_file, luks_admin
from keyquorum.linux.private_header import copy_header
from keyquorum.model import volume_set as volume_sets
from keyquorum.model.anchor import MAX_ANCHOR, Anchor
from keyquorum.model.token import Token
from keyquorum.model.volume_set import MAX_PAYLOAD
from keyquorum.secret import KeyEncryptionKey
from keyquorum.unlock.verified_set import Enrolment, anchor_path, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.enroll.request import Request
    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.volume_set import VolumeSet
    from keyquorum.secret import VolumeKey

_MAKE_ROOM = 'remove tokens or keyslots nobody uses, take fewer holders, or kem = "x25519" in the policy\'s [fragments]'


def enroll(request: Request, header: Header, volume_key: VolumeKey) -> VolumeSet:
    """Put a volume under the policy's quorum; return the committed set.

    `header` is open for writing, `volume_key` was verified against it. On any failure the fragments written so far
    are taken back and the volume is as it was.
    """
    descriptor = check_header(header)
    plan = make_plan(request, descriptor, volume_key, next_epoch(descriptor.uuid, request.settings.volumes))
    done = Undo()
    try:
        seal.into_key_holders(plan, done.wheres)
        _check_room(plan, done.wheres)
        seal.into_envelope_holders(plan, done.wheres)
        if request.with_keyslot:
            request.tell("adding the keyslot")
        with uninterrupted():
            done.keyslot = _add_keyslot(plan, header)
        volume_set = plan.volume_set(done.wheres, done.keyslot)
        enrolment, token = _assemble(plan, volume_set)
        prove(plan, enrolment)
        request.tell("writing the LUKS2 token")
        with uninterrupted():
            done.anchor_before = _write_anchor(request, volume_set)
            luks_admin.set_token(header, token.to_json())
            done.committed = True
    finally:
        if not done.committed:
            with uninterrupted():
                take_back(plan, header, done)
        plan.close()
    request.tell("reading the token back")
    with copy_header(request.device, request.header) as copy:
        verify_enrolment(copy, request.settings.volumes)
    seal.retire_leftovers(request, volume_set)
    return volume_set


def _check_room(plan: Plan, wheres: dict[int, dict[str, Any]]) -> None:
    """Add keyslot and token to a private copy of the header: what is full is found before a disk is written.

    Raises `UsageError` for a set that its own reader would not take.
    """
    request = plan.request
    filled = expected_wheres(plan, wheres)
    with copy_header(request.device, request.header) as copy:
        volume_set = plan.volume_set(filled, _add_keyslot(plan, copy))
        size = len(volume_set.payload())
        if size > MAX_PAYLOAD:
            raise UsageError(
                f"a set of {len(plan.fragments)} fragments has {size} bytes, more than the {MAX_PAYLOAD} allowed",
                "let the policy have fewer fragments",
            )
        _, token = _assemble(plan, volume_set)
        try:
            luks_admin.set_token(copy, token.to_json())
        except KeyquorumError as error:
            raise KeyquorumError(
                f"the LUKS2 header has no room for a token of {len(token.to_json())} bytes: {error.message}", _MAKE_ROOM
            ) from None


def _add_keyslot(plan: Plan, header: Header) -> int:
    if not plan.request.with_keyslot or not isinstance(plan.secret, KeyEncryptionKey):
        return -1
    with wrapping.keyslot_passphrase(plan.secret) as passphrase:
        return luks_admin.add_keyslot(header, plan.volume_key, passphrase, cheap=True)


def _assemble(plan: Plan, volume_set: VolumeSet) -> tuple[Enrolment, Token]:
    """Sign the set; return it as an unlock will read it, and as the token to write."""
    owner, payload = plan.request.owner, volume_set.payload()
    envelopes = {
        str(planned.spec.index): planned.envelope for planned in plan.fragments if not seal.keeps_envelope(planned)
    }
    keyslots = (str(volume_set.keyslot),) if volume_set.keyslot >= 0 else ()
    token = Token(volume_set=owner.sign(dsse.SET_TYPE, payload), fragments=envelopes, keyslots=keyslots)
    read = volume_sets.parse(payload, "set")
    enrolment = Enrolment(volume_set=read, owners=(owner.public,), envelopes=envelopes, token_number=-1)
    return enrolment, token


def _write_anchor(request: Request, volume_set: VolumeSet) -> bytes:
    """Write the trust anchor; return the content of the file that it replaces, b"" for none."""
    anchor = Anchor(volume=volume_set.volume, owners=(request.owner.public.raw,), epoch=volume_set.epoch)
    path = anchor_path(volume_set.volume, request.settings.volumes)
    before = atomic_file.read(path, MAX_ANCHOR)
    atomic_file.write(path, anchor.to_json() + b"\n", 0o644)
    return before
