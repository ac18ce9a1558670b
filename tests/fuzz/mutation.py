# SPDX-License-Identifier: Apache-2.0
"""Spoiling good input: what a fuzzer of bytes does, drawn by hypothesis so that a failure shrinks to what matters."""

from __future__ import annotations

from hypothesis import strategies as st

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MAX_EDITS = 4
_LONGEST = 24


@st.composite
def edited(draw: st.DrawFn, seed: bytes) -> bytes:
    """Return the seed after some edits: a bit, a number, a cut, an insertion, a copy of one part over another."""
    data = seed
    for _ in range(draw(st.integers(1, MAX_EDITS))):
        at = draw(st.integers(0, len(data)))
        data = _EDITS[draw(st.integers(0, len(_EDITS) - 1))](draw, data, at)
    return data


def _bit(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    if at == len(data):
        return data
    return data[:at] + bytes((data[at] ^ 1 << draw(st.integers(0, 7)),)) + data[at + 1 :]


def _number(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    size, order = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from(("little", "big")))
    value = draw(st.sampled_from(INTERESTING)) & ((1 << 8 * size) - 1)
    return data[:at] + value.to_bytes(size, "little" if order == "little" else "big") + data[at + size :]


def _cut(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + draw(st.integers(1, 1 + len(data))) :]


def _insert(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + draw(st.binary(max_size=_LONGEST)) + data[at:]


def _copy(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    start, size = draw(st.integers(0, len(data))), draw(st.integers(1, _LONGEST))
    return data[:at] + data[start : start + size] + data[at:]


_EDITS = (_bit, _number, _cut, _insert, _copy)
