# SPDX-License-Identifier: Apache-2.0
"""Commitments name a false share before it is combined (docs/sharing.md §6)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.secret import Share
from keyquorum.sharing.commitment import BLIND_SIZE, commit

SET_ID = bytes(range(16))
OPENING = bytes(range(32)) + b"\xaa" * 32


def committed(
    opening: bytes = OPENING, set_id: bytes = SET_ID, epoch: int = 7, path: tuple[int, ...] = (3, 1)
) -> bytes:
    with Share.from_view(opening) as share:
        return commit(set_id, epoch, path, share)


def test_it_is_the_hash_that_the_specification_says() -> None:
    expected = hashlib.sha256(b"keyquorum/v1/commitment\x00" + SET_ID + b"\x00\x00\x00\x07\x02\x03\x01" + OPENING)
    assert committed() == expected.digest()
    assert BLIND_SIZE == 32


@given(bit=st.integers(0, 8 * len(OPENING) - 1))
def test_a_false_share_does_not_match(bit: int) -> None:
    false = bytearray(OPENING)
    false[bit // 8] ^= 1 << bit % 8
    assert committed(bytes(false)) != committed()


@pytest.mark.parametrize("opening", [OPENING[:-1], OPENING + b"\x00", b"\x00" + OPENING, OPENING[:32], b""])
def test_a_share_of_another_length_does_not_match(opening: bytes) -> None:
    assert committed(opening) != committed()


def test_another_set_does_not_match() -> None:
    assert committed(set_id=bytes(16)) != committed()


@pytest.mark.parametrize("epoch", [1, 6, 8, 7 << 8])
def test_another_epoch_does_not_match(epoch: int) -> None:
    assert committed(epoch=epoch) != committed()


@pytest.mark.parametrize("path", [(1, 3), (3,), (3, 1, 1), (3, 2), (1,)])
def test_another_place_does_not_match(path: tuple[int, ...]) -> None:
    assert committed(path=path) != committed()


def test_path_and_opening_cannot_be_shifted_into_each_other() -> None:
    assert committed(path=(3,), opening=b"\x01" + OPENING) != committed(path=(3, 1), opening=OPENING)


def test_the_blind_hides_a_guessed_share() -> None:
    # Two fragments of the same share: without the 32 random bytes nobody can tell, or confirm a guess
    assert committed(bytes(32) + b"\xaa" * 32) != committed(b"\x01" * 32 + b"\xaa" * 32)


def test_a_path_that_does_not_fit_is_a_programmers_error() -> None:
    for path in ((256,), (-1,)):
        with pytest.raises(ValueError, match="range"):
            committed(path=path)
    with pytest.raises(OverflowError):
        committed(epoch=1 << 32)
