# SPDX-License-Identifier: Apache-2.0
"""What evidence is bound to (docs/attestation.md §4): every part counts, and none can pass for another."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import MalformedError
from keyquorum.evidence import binding
from keyquorum.evidence.binding import Binding

UUID = "6d1c7d1e-5ab0-4d6f-8b0e-000000000001"
GOOD = Binding(
    nonce=bytes(range(32)),
    verifier="paris",
    volume=UUID,
    set_id=bytes(16),
    index=2,
    epoch=7,
    key=b"one-time key in DER",
    exporter=b"exporter",
)


def test_the_formula() -> None:
    parts = [
        b"keyquorum/v1/report-data",
        bytes(range(32)),
        b"paris",
        UUID.encode(),
        bytes(16) + b"\x02",
        b"\x00\x00\x00\x07",
        b"one-time key in DER",
        b"exporter",
    ]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert binding.report_data(GOOD) == hashlib.sha512(message).digest()
    assert binding.qualifying_data(GOOD) == hashlib.sha256(hashlib.sha512(message).digest()).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(32)},
        {"verifier": "berlin"},
        {"volume": UUID.replace("1", "2")},
        {"set_id": b"\x01" * 16},
        {"index": 3},
        {"epoch": 8},
        {"key": b"another key"},
        {"exporter": b""},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_part_counts(changes: dict[str, Any]) -> None:
    assert binding.report_data(GOOD.with_(**changes)) != binding.report_data(GOOD)


@given(key=st.binary(min_size=1, max_size=40), exporter=st.binary(max_size=40), cut=st.integers(0, 80))
def test_no_part_can_pass_for_another(key: bytes, exporter: bytes, cut: int) -> None:
    whole = key + exporter
    other = GOOD.with_(key=whole[: cut % len(whole) or 1], exporter=whole[cut % len(whole) or 1 :])
    same = (other.key, other.exporter) == (key, exporter)
    first = GOOD.with_(key=key, exporter=exporter)
    assert (binding.report_data(other) == binding.report_data(first)) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(31)},
        {"nonce": bytes(65)},
        {"verifier": ""},
        {"verifier": "x" * 257},
        {"volume": UUID.upper()},
        {"volume": UUID[:-1]},
        {"set_id": bytes(15)},
        {"index": 0},
        {"index": 256},
        {"epoch": 0},
        {"epoch": 1 << 32},
        {"key": b""},
        {"key": bytes(4097)},
        {"exporter": bytes(65)},
    ],
    ids=str,
)
def test_what_cannot_be_bound_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        binding.report_data(GOOD.with_(**changes))
    assert caught.value.where == next(iter(changes))
