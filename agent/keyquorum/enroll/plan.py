# SPDX-License-Identifier: Apache-2.0
"""Step 2: everything about the new set that can be decided without touching a holder (docs/enrolment.md §3)."""

from __future__ import annotations

from keyquorum.envelope import dsse, wrapping
from keyquorum.envelope.sealing import Recipient
from keyquorum.model import tree
from keyquorum.model.fragment import BLIND_SIZE, Description, Fragment
from keyquorum.model.volume_set import DIRECT, KEK_SIZE, WRAPPED, Placement, VolumeSet
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.secret import Identity, KeyEncryptionKey, Secret, Share, VolumeKey
from keyquorum.sharing import commitment
from keyquorum.sharing import tree as sharing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.enroll.request import Request
    from keyquorum.model.header import HeaderDescriptor
    from keyquorum.model.policy import HolderSpec

FIRST_EPOCH = 1
_DAY = 86400


class PlannedFragment(Record):
    """A signed fragment on its way to its holder, and the identity that opens it."""

    spec: HolderSpec
    identity: Identity
    recipient: bytes
    commitment: bytes
    envelope: dict[str, Any]


class Plan(Record):
    """A set before its holders have been asked. `close` wipes what is secret in it."""

    request: Request
    descriptor: HeaderDescriptor
    set_id: bytes
    epoch: int
    secret: KeyEncryptionKey | VolumeKey
    volume_key: VolumeKey
    fragments: tuple[PlannedFragment, ...]

    def close(self) -> None:
        """Wipe the KEK and the identities; the volume key belongs to the caller."""
        if isinstance(self.secret, KeyEncryptionKey):
            self.secret.wipe()
        for planned in self.fragments:
            planned.identity.wipe()

    def volume_set(self, wheres: dict[int, dict[str, Any]], keyslot: int) -> VolumeSet:
        """Return the set, given where each holder keeps its part."""
        request = self.request
        unwrapped = VolumeSet(
            volume=self.descriptor.uuid,
            set_id=self.set_id,
            epoch=self.epoch,
            mode=DIRECT if request.direct else WRAPPED,
            key_size=self.volume_key.size,
            issued=request.now,
            header=self.descriptor,
            policy=request.policy.tree,
            placements=tuple(
                Placement(
                    index=planned.spec.index,
                    name=planned.spec.name,
                    kind=planned.spec.kind,
                    recipient=planned.recipient,
                    commitment=planned.commitment,
                    where=wheres[planned.spec.index],
                )
                for planned in self.fragments
            ),
            nonce=b"",
            wrapped=b"",
            measure_pcr=request.policy.measure_pcr,
            keyslot=keyslot,
        )
        if not isinstance(self.secret, KeyEncryptionKey):
            return unwrapped
        with sodium.random_secret(Secret, wrapping.NONCE_SIZE) as fresh:
            nonce = bytes(fresh.view)
        wrapped = wrapping.wrap(self.secret, self.volume_key, unwrapped.binding(), nonce)
        return unwrapped.with_(nonce=wrapped.nonce, wrapped=wrapped.ciphertext)


def make_plan(request: Request, descriptor: HeaderDescriptor, volume_key: VolumeKey, epoch: int = FIRST_EPOCH) -> Plan:
    """Split the secret along the policy, and seal and sign every fragment."""
    with sodium.random_secret(Secret, 16) as fresh:
        set_id = bytes(fresh.view)
    secret = volume_key if request.direct else sodium.random_secret(KeyEncryptionKey, KEK_SIZE)
    points = sharing.split(request.policy.tree, secret.integer(), secret.size, _random_integer)
    places = {index: (path, node) for index, path, node in tree.leaves(request.policy.tree)}
    fragments = []
    for spec in request.policy.holders:
        path, node = places[spec.index]
        identity = sodium.random_secret(Identity, 32)
        recipient = Recipient.of(identity, request.kem)
        description = Description(
            volume=descriptor.uuid,
            set_id=set_id,
            epoch=epoch,
            index=spec.index,
            total=len(request.policy.holders),
            threshold=node.threshold,
            path=path,
            name=spec.name,
            kind=spec.kind,
            recipient=recipient.key_id,
            issued=request.now,
            expires=request.now + request.policy.valid_days * _DAY if request.policy.valid_days else 0,
        )
        with _blinded(points[spec.index], secret.size) as share:
            enc, ciphertext = recipient.seal(share, description.info())
            committed = commitment.commit(set_id, epoch, path, share)
        fragment = Fragment(description=description, kem=request.kem, enc=enc, ciphertext=ciphertext)
        fragments.append(
            PlannedFragment(
                spec=spec,
                identity=identity,
                recipient=recipient.key_id,
                commitment=committed,
                envelope=request.owner.sign(dsse.FRAGMENT_TYPE, fragment.payload()),
            )
        )
    return Plan(
        request=request,
        descriptor=descriptor,
        set_id=set_id,
        epoch=epoch,
        secret=secret,
        volume_key=volume_key,
        fragments=tuple(fragments),
    )


def _random_integer(size: int) -> int:
    with sodium.random_secret(Secret, size) as fresh:
        return fresh.integer()


def _blinded(point: int, size: int) -> Share:
    """Return 32 fresh blinding bytes followed by the point."""
    share = sodium.random_secret(Share, BLIND_SIZE + size)
    with Share.from_integer(point, size) as packed:
        share.view[BLIND_SIZE:] = packed.view
    return share
