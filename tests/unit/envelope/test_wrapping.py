# SPDX-License-Identifier: Apache-2.0
"""The wrapped volume key: opens with everything right and with nothing else (docs/token.md §4)."""

from __future__ import annotations

import binascii

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyquorum.envelope import wrapping
from keyquorum.envelope.wrapping import WrappedKey
from keyquorum.errors import TamperingError
from keyquorum.model.tree import Leaf, Node
from keyquorum.model.volume_set import VolumeSet
from keyquorum.secret import KeyEncryptionKey, VolumeKey
from unit.model.objects import HEADER, VOLUME_SET

KEK, KEY, NONCE = bytes(range(32)), bytes(range(64)), bytes(range(24))


def wrapped(binding: bytes) -> WrappedKey:
    with KeyEncryptionKey.from_view(KEK) as kek, VolumeKey.from_view(KEY) as key:
        return wrapping.wrap(kek, key, binding, NONCE)


def unwrapped(found: WrappedKey, binding: bytes, kek: bytes = KEK) -> bytes:
    with KeyEncryptionKey.from_view(kek) as secret, wrapping.unwrap(secret, found, binding) as key:
        assert isinstance(key, VolumeKey)
        return bytes(key.view)


BINDING = VOLUME_SET.binding()
GOOD = wrapped(BINDING)


def test_round_trip() -> None:
    assert unwrapped(GOOD, BINDING) == KEY
    assert (GOOD.nonce, len(GOOD.ciphertext)) == (NONCE, 64 + 16)


@pytest.mark.parametrize(
    "volume_set",
    [
        VOLUME_SET.with_(volume="f" * 36),
        VOLUME_SET.with_(set_id=bytes(16)),
        VOLUME_SET.with_(epoch=4),
        VOLUME_SET.with_(policy=Node(threshold=1, children=VOLUME_SET.policy.children)),
        VOLUME_SET.with_(policy=Node(threshold=2, children=(Leaf(index=1), Leaf(index=2)))),
        *(VOLUME_SET.with_(header=HEADER.with_(**{field: "x"})) for field in HEADER._fields),
    ],
)
def test_every_field_of_the_binding_matters(volume_set: VolumeSet) -> None:
    with pytest.raises(
        TamperingError, match=r"^volume key: wrap: was not wrapped by this set for this header$"
    ) as caught:
        unwrapped(GOOD, volume_set.binding())
    assert caught.value.exit_code == 4


def test_what_is_not_bound() -> None:
    for changes in ({"issued": 5}, {"measure_pcr": -1}, {"keyslot": 3}, {"placements": ()}):
        assert VOLUME_SET.with_(**changes).binding() == BINDING


def test_another_kek_nonce_or_ciphertext() -> None:
    for at in range(32):
        kek = bytearray(KEK)
        kek[at] ^= 1
        with pytest.raises(TamperingError):
            unwrapped(GOOD, BINDING, bytes(kek))
    for at in range(24):
        nonce = bytearray(NONCE)
        nonce[at] ^= 0x80
        with pytest.raises(TamperingError):
            unwrapped(GOOD.with_(nonce=bytes(nonce)), BINDING)
    for at in range(80):
        ciphertext = bytearray(GOOD.ciphertext)
        ciphertext[at] ^= 4
        with pytest.raises(TamperingError):
            unwrapped(GOOD.with_(ciphertext=bytes(ciphertext)), BINDING)


def test_sizes_that_no_wrapped_key_has() -> None:
    for changes in ({"nonce": b""}, {"nonce": bytes(23)}, {"nonce": bytes(25)}, {"ciphertext": b""}):
        with pytest.raises(TamperingError):
            unwrapped(GOOD.with_(**changes), BINDING)
    for size in range(80):
        with pytest.raises(TamperingError):
            unwrapped(GOOD.with_(ciphertext=GOOD.ciphertext[:size]), BINDING)


def test_the_keyslots_passphrase_is_the_one_of_the_specification() -> None:
    """hex(HKDF-SHA256-Expand(KEK, "keyquorum/v1/keyslot")), by another implementation."""
    derived = HKDFExpand(algorithm=SHA256(), length=32, info=b"keyquorum/v1/keyslot").derive(KEK)
    with KeyEncryptionKey.from_view(KEK) as kek, wrapping.keyslot_passphrase(kek) as passphrase:
        assert bytes(passphrase.view) == binascii.hexlify(derived)


def test_the_two_uses_of_a_kek_have_nothing_in_common() -> None:
    derived = HKDFExpand(algorithm=SHA256(), length=32, info=b"keyquorum/v1/keyslot").derive(KEK)
    with pytest.raises(TamperingError):
        unwrapped(GOOD, BINDING, derived)
