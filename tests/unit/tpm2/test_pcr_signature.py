# SPDX-License-Identifier: Apache-2.0
"""Reading systemd's tpm2-pcr-signature.json: what it may hold, and nothing that would surprise a TPM."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.tpm2 import pcr_signature

ENTRY = {"pcrs": [11], "pkfp": "ab" * 32, "pol": "cd" * 32, "sig": base64.b64encode(b"s" * 256).decode()}


def parsed(table: Any) -> list[pcr_signature.SignedPolicy]:
    return pcr_signature.parse(json.dumps(table).encode(), "file")


def test_entries_are_read_bank_by_bank() -> None:
    found = parsed({"sha256": [ENTRY, {**ENTRY, "pcrs": [12, 11]}], "sha1": [{**ENTRY, "pol": "00" * 32}], "sm3": 1})
    assert [(entry.bank, entry.pcrs) for entry in found] == [("sha1", (11,)), ("sha256", (11,)), ("sha256", (11, 12))]
    assert (found[1].fingerprint, found[1].digest, found[1].signature) == (b"\xab" * 32, b"\xcd" * 32, b"s" * 256)


def test_names_of_later_versions_are_passed_over() -> None:
    assert len(parsed({"sha256": [{**ENTRY, "tbs": "x", "comment": {}}]})) == 1


def test_nothing_signed_is_no_error() -> None:
    assert parsed({}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": [24]}, {"pcrs": [-1]}, {"pcrs": ["11"]}, {"pcrs": [True]}, {"pcrs": 11}, {"pcrs": list(range(25))},
        {"pkfp": "ab" * 31}, {"pkfp": "AB" * 32}, {"pol": "cd" * 20}, {"pol": None}, {"sig": "?"},
        {"sig": base64.b64encode(bytes(1025)).decode()}, {"sig": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TamperingError) as caught:
        parsed({"sha256": [{**ENTRY, **change}]})
    assert "sha256[0]" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"sha256":1}', b'{"sha256":[1]}', b" " * (256 * 1024 + 1)])
def test_a_file_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(TamperingError):
        pcr_signature.parse(data, "file")


def test_more_entries_than_anybody_needs_are_refused() -> None:
    with pytest.raises(TamperingError):
        parsed({"sha256": [ENTRY] * 257})
