# SPDX-License-Identifier: Apache-2.0
"""The file of a machine's identity: written and read alike, and strict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyquorum.errors import MalformedError
from keyquorum.model.machine_identity import KnownCustodian, MachineIdentity, parse
from keyquorum.model.network_address import IPV4, Endpoint

KNOWN = KnownCustodian(
    machine="web-1",
    key=bytes(32),
    authority=b"ca",
    addresses=(Endpoint(host="192.0.2.7", port=4433, kind=IPV4),),
    sealing=b"spki",
    chain=(b"own", b"intermediate"),
)
IDENTITY = MachineIdentity(key={"version": 1}, attestation=("ecc", bytes(32))).knowing("eu-1.example", KNOWN)


def test_round_trip() -> None:
    assert parse(IDENTITY.to_json(), "x") == IDENTITY
    assert IDENTITY.custodian("eu-1.example") == KNOWN
    assert IDENTITY.custodian("eu-2.example") is None


def test_a_custodian_is_replaced_by_its_name() -> None:
    again = IDENTITY.knowing("eu-1.example", KNOWN.with_(machine="web-2")).knowing("ap-1.example", KNOWN)
    assert [(name, known.machine) for name, known in again.custodians] == [
        ("ap-1.example", "web-1"),
        ("eu-1.example", "web-2"),
    ]


def changed(**changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(IDENTITY.to_json())
    table["custodians"]["eu-1.example"] |= changes
    return table


BAD: dict[str, Any] = {
    "another version": json.loads(IDENTITY.to_json()) | {"version": 2},
    "more": json.loads(IDENTITY.to_json()) | {"more": 1},
    "no key": {name: value for name, value in json.loads(IDENTITY.to_json()).items() if name != "key"},
    "kind of key": json.loads(IDENTITY.to_json()) | {"attestation": {"type": "dsa", "name": ""}},
    "a custodian with more": changed(more=1),
    "no certificate": changed(certificates=[]),
    "five certificates": changed(certificates=["AA=="] * 5),
    "a short signing key": changed(key="AA=="),
    "no address": changed(addresses=[]),
    "a name with a slash": json.loads(IDENTITY.to_json()) | {"custodians": {"eu/1": {}}},
    "seventeen custodians": json.loads(IDENTITY.to_json()) | {"custodians": {f"c{i}.example": {} for i in range(17)}},
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        parse(json.dumps(BAD[name]).encode(), "x")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_no_such_file(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data, "x")
