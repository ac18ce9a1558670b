# SPDX-License-Identifier: Apache-2.0
"""The estimate of a token's size against a real, signed and sealed one."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyquorum.envelope import dsse
from keyquorum.envelope.hpke import ENC_SIZES
from keyquorum.envelope.sealing import Recipient
from keyquorum.envelope.signing import Owner
from keyquorum.model import token_size, tree
from keyquorum.model.fragment import Description, Fragment
from keyquorum.model.header import HeaderDescriptor
from keyquorum.model.policy import HolderSpec, Policy
from keyquorum.model.token import Token
from keyquorum.model.volume_set import MAX_PAYLOAD, WRAPPED, Placement, VolumeSet
from keyquorum.secret import Identity, Share
from unit.model.policies import short

UUID = "5b2c0f3e-5f0e-4d0d-9a43-9a5e4a3d8a11"
SEGMENTS = (
    '{"0":{"encryption":"aes-xts-plain64","iv_tweak":"0","offset":"16777216","sector_size":512,"size":"dynamic",'
    '"type":"crypt"}}'
)


def real_thing(policy: Policy, kem: str) -> tuple[VolumeSet, Token]:
    """Make a signed set and its token, with nothing real but their sizes."""
    owner = Owner(Ed25519PrivateKey.generate())
    envelopes, placements = {}, []
    for spec in policy.holders:
        recipient, fragment = sealed(policy, spec, kem)
        if spec.kind != "disk":
            envelopes[str(spec.index)] = owner.sign(dsse.FRAGMENT_TYPE, fragment.payload())
        placements.append(
            Placement(
                index=spec.index,
                name=spec.name,
                kind=spec.kind,
                recipient=recipient,
                commitment=os.urandom(32),
                where={"x": "0" * token_size._where_size(spec)},
            )
        )
    real = VolumeSet(
        volume=UUID,
        set_id=os.urandom(16),
        epoch=1,
        mode=WRAPPED,
        key_size=64,
        issued=1_800_000_000,
        header=HeaderDescriptor(uuid=UUID, segments=SEGMENTS, digest="0" * 64, requirements=""),
        policy=policy.tree,
        placements=tuple(placements),
        nonce=os.urandom(24),
        wrapped=os.urandom(80),
        measure_pcr=15,
        keyslot=-1,
    )
    return real, Token(volume_set=owner.sign(dsse.SET_TYPE, real.payload()), fragments=envelopes)


def sealed(policy: Policy, spec: HolderSpec, kem: str) -> tuple[bytes, Fragment]:
    """Seal a fragment for a holder; also give the id of the identity's key."""
    path, threshold = next(
        (path, node.threshold) for index, path, node in tree.leaves(policy.tree) if index == spec.index
    )
    with Identity.from_view(os.urandom(32)) as identity, Share.from_view(os.urandom(64)) as share:
        recipient = Recipient.of(identity, kem)
        description = Description(
            volume=UUID,
            set_id=os.urandom(16),
            epoch=1,
            index=spec.index,
            total=len(policy.holders),
            threshold=threshold,
            path=path,
            name=spec.name,
            kind=spec.kind,
            recipient=recipient.key_id,
            issued=1_800_000_000,
            expires=0,
        )
        enc, ciphertext = recipient.seal(share, description.info())
    return recipient.key_id, Fragment(description=description, kem=kem, enc=enc, ciphertext=ciphertext)


def test_sizes_of_encapsulated_keys_are_those_of_hpke() -> None:
    assert token_size._ENC_SIZES == ENC_SIZES


@pytest.mark.parametrize("kem", ["x-wing", "x25519"])
@pytest.mark.parametrize("of", ["tpm-t disk-a disk-b", "tpm-t sheet phrase-x", "hsm-a hsm-b sheet disk-a disk-b"])
def test_the_estimate_is_near_the_real_thing(kem: str, of: str) -> None:
    policy = short(2, of, f'[fragments]\nkem = "{kem}"\n')
    volume_set, token = real_thing(policy, kem)
    size = token_size.estimate(policy)
    assert size.volume_set == pytest.approx(len(volume_set.payload()), rel=0.05)
    assert size.token == pytest.approx(len(token.to_json()), rel=0.05)


def test_the_caps() -> None:
    small, large = (token_size.TokenSize(volume_set=MAX_PAYLOAD + n, token=token_size.STOCK_ROOM + n) for n in (0, 1))
    assert small.fits_set
    assert small.fits_stock_header
    assert not large.fits_set
    assert not large.fits_stock_header
