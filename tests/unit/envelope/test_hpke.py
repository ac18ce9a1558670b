# SPDX-License-Identifier: Apache-2.0
"""Opening seals: what `cryptography` sealed opens, everything else is refused (docs/fragment.md §3).

X-Wing needs OpenSSL 3.5; tests/vectors runs it on every machine.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum import secret
from keyquorum.envelope import hpke
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import RefusedError
from keyquorum.secret import Identity, Share

SEED, INFO, SHARE = bytes(range(32)), b"keyquorum/v1/fragment\0{}", bytes(range(64))
with Identity.from_view(SEED) as identity, Share.from_view(SHARE) as share:
    ENC, CIPHERTEXT = Recipient.of(identity, hpke.X25519).seal(share, INFO)


def opened(
    enc: bytes = ENC, ciphertext: bytes = CIPHERTEXT, info: bytes = INFO, seed: bytes = SEED, kem: str = hpke.X25519
) -> bytes:
    with Identity.from_view(seed) as own, hpke.open_sealed(kem, own, enc, ciphertext, info) as plain:
        assert isinstance(plain, Share)
        return bytes(plain.view)


def refused(**changes: object) -> str:
    arena = secret._get_arena()
    before = sum(size for _, size in arena._free)
    with pytest.raises(RefusedError) as caught:
        opened(**changes)  # type: ignore[arg-type]  # any of its arguments
    assert caught.value.tampered
    assert sum(size for _, size in arena._free) == before, "protected memory was not given back"
    return caught.value.message


def test_what_was_sealed_opens() -> None:
    assert opened() == SHARE


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=1, max_size=176), st.binary(max_size=300))
def test_any_share_and_info(plain: bytes, info: bytes) -> None:
    seed = os.urandom(32)
    with Identity.from_view(seed) as own, Share.from_view(plain) as wanted:
        enc, ciphertext = Recipient.of(own, hpke.X25519).seal(wanted, info)
    assert opened(enc, ciphertext, info, seed) == plain


def test_another_info_identity_or_a_single_bit() -> None:
    words = "the fragment was sealed to another key, or altered"
    assert refused(info=INFO + b" ") == words
    assert refused(info=b"") == words
    assert refused(seed=bytes(32)) == words
    for at in range(len(CIPHERTEXT)):
        assert refused(ciphertext=CIPHERTEXT[:at] + bytes([CIPHERTEXT[at] ^ 1]) + CIPHERTEXT[at + 1 :]) == words
    for at in range(31):
        assert refused(enc=ENC[:at] + bytes([ENC[at] ^ 1]) + ENC[at + 1 :]) == words
    for size in range(len(CIPHERTEXT)):
        assert refused(ciphertext=CIPHERTEXT[:size]) == words


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
)
def test_points_of_small_order(point: bytes) -> None:
    assert refused(enc=point) == "the fragment's seal holds a point of small order"


def test_unknown_kinds_and_sizes() -> None:
    words = "the fragment's seal has an unknown kind or a wrong size"
    assert refused(kem="rot13") == words
    assert refused(enc=ENC[:-1]) == words
    assert refused(enc=ENC + b"\0") == words
    assert refused(kem=hpke.X_WING) == words
    assert refused(enc=bytes(1120)) == words


def test_nothing_secret_is_left_in_protected_memory() -> None:
    before = secret._arena
    secret.start_afresh()
    try:
        opened()
        refused(info=b"other")
        arena = secret._get_arena()
        assert arena._free == [(0, secret._ARENA_SIZE)]
        with secret.Secret(secret._ARENA_SIZE) as whole:
            assert bytes(whole.view) == bytes(secret._ARENA_SIZE)
    finally:
        secret._arena = before
