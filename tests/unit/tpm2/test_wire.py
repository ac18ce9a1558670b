# SPDX-License-Identifier: Apache-2.0
"""The reader takes nothing that is not there and leaves nothing behind (docs/holders-tpm.md §3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import RefusedError
from keyquorum.tpm2 import banks
from keyquorum.tpm2.wire import Reader, sized, u16, u32


@given(data=st.binary(max_size=300), number=st.integers(0, 0xFFFFFFFF), small=st.integers(0, 0xFFFF))
def test_what_was_written_is_read(data: bytes, number: int, small: int) -> None:
    reader = Reader(u32(number) + sized(data) + u16(small), "it")
    assert (reader.u32(), reader.sized(300), reader.u16()) == (number, data, small)
    reader.finish()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"", lambda r: r.u8()),
        (b"\x00", lambda r: r.u16()),
        (b"\x00\x00\x00", lambda r: r.u32()),
        (b"\x00\x05abcd", lambda r: r.sized(64)),
        (b"\x00\x05abcde", lambda r: r.sized(4)),
        (b"\xff\xff\xff\xff", lambda r: r.count(16)),
        (b"x", lambda r: r.finish()),
    ],
    ids=["no byte", "half a number", "three of four", "cut short", "longer than allowed", "too many", "left over"],
)
def test_what_does_not_fit_is_refused(data: bytes, read: object) -> None:
    assert callable(read)
    with pytest.raises(RefusedError) as caught:
        read(Reader(data, "the answer"))
    assert caught.value.tampered
    assert "the answer is malformed" in caught.value.message


@given(pcrs=st.sets(st.integers(0, 23)))
def test_selections_come_back(pcrs: set[int]) -> None:
    reader = Reader(banks.selection("sha384", pcrs), "selection")
    assert banks.read_selections(reader) == [(0x0C, tuple(sorted(pcrs)))]
    reader.finish()


def test_a_selection_is_the_one_of_the_specification() -> None:
    assert banks.selection("sha256", (0, 7, 11, 23)).hex() == "00000001000b03810880"


def test_a_selection_wider_than_any_tpm_is_refused() -> None:
    with pytest.raises(RefusedError):
        banks.read_selections(Reader(u32(1) + u16(0x0B) + b"\x05" + bytes(5), "selection"))


@pytest.mark.parametrize(("bank", "size"), [("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_each_bank_hashes_by_its_own_algorithm(bank: str, size: int) -> None:
    import hashlib

    assert banks.digest(bank, b"firmware") == hashlib.new(bank, b"firmware").digest()
    assert banks.extend(bank, bytes(size), b"x") == hashlib.new(bank, bytes(size) + b"x").digest()
