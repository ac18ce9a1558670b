# SPDX-License-Identifier: Apache-2.0
"""What a custodian answers to owners, auditors and witnesses over TLS on the loopback (docs/custodian.md §12)."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from devices.custodian_site import ORIGIN, Running, a_site, client_certificate
from keyquorum.custodian import checkpoint, merkle, note, receipt, site_settings
from keyquorum.model import deposit_messages, release_messages, strict_json
from keyquorum.model.deposit_messages import Retirement
from unit.custodian.notes import FRAGMENT, private
from unit.custodian.offices import FLEET

NEXT = FRAGMENT.with_(epoch=4)


@pytest.fixture
def custodian(memory_path: str) -> Iterator[Running]:
    with Running(memory_path) as running:
        running.deposit()
        yield running


def test_an_epoch_over_the_wire(custodian: Running) -> None:
    wire = custodian.wire()
    assert wire.ask("/v1/deposit", custodian.deposit_body()).status == 409, "it is there already"
    answered = wire.ask("/v1/deposit", custodian.deposit_body(NEXT))
    payload, proof = wire.signed(answered, deposit_messages.ACKNOWLEDGEMENT_TYPE)
    assert receipt.verify(proof, custodian.site.log_signer(custodian.site.settings()).key).entry.act == "deposited"
    signed = deposit_messages.retirement_payload(
        Retirement(custodian=ORIGIN, owner=FLEET.public.raw, fragment=FRAGMENT)
    )
    body = strict_json.serialise(FLEET.sign(deposit_messages.RETIREMENT_TYPE, signed))
    answered = wire.ask("/v1/retire", body)
    payload, _ = wire.signed(answered, deposit_messages.ACKNOWLEDGEMENT_TYPE)
    deposit_messages.parse_acknowledgement(payload, ORIGIN, hashlib.sha256(signed).digest())
    answered, _ = custodian.release()
    assert answered.status == 403


def test_the_log_for_machines_and_for_auditors(custodian: Running, tmp_path: Path) -> None:
    wire = custodian.wire()
    key = custodian.site.log_signer(custodian.site.settings()).key
    first = checkpoint.verify(wire.ask("/v1/log/checkpoint").body, key).checkpoint
    custodian.release()
    second = checkpoint.verify(wire.ask("/v1/log/checkpoint").body, key).checkpoint
    answered = wire.ask(f"/v1/log/consistency?old={first.size}&new={second.size}")
    proof = [strict_json_bytes(text) for text in answered.table["hashes"]]
    merkle.verify_consistency(first.size, first.root, second.size, second.root, proof)
    assert wire.ask("/v1/log/entries?start=0").status == 403
    auditor = client_certificate(str(tmp_path), custodian.site.authority(), "auditor")
    changed = replace(custodian.site.settings(), auditors={"me": auditor.hash})
    Path(custodian.site.path("custodian.toml")).write_bytes(site_settings.serialise(changed))
    custodian.endpoints.house = custodian.house()
    reading = custodian.wire(auditor)
    bodies = [strict_json_bytes(text) for text in reading.ask("/v1/log/entries?start=0").table["entries"]]
    assert len(bodies) == second.size
    table = reading.ask(f"/v1/log/proof?number=2&size={second.size}").table
    path = [strict_json_bytes(text) for text in table["hashes"]]
    merkle.verify_inclusion(merkle.leaf_hash(bodies[2]), 2, second.size, path, second.root)
    for path_and_query in (
        "/v1/log/entries", "/v1/log/entries?start=x", "/v1/log/proof?number=99&size=3", "/v1/log/entries?start=1&start=2",
        "/v1/log/consistency?old=1&new=9999", "/v1/witnessed",
    ):  # fmt: skip
        assert reading.ask(path_and_query).status == 400, path_and_query
    assert reading.ask("/v1/log/entries?start=9999").table["entries"] == []
    assert reading.ask("/v1/challenge", release_messages.challenge_request(FRAGMENT)).status == 403


def strict_json_bytes(text: str) -> bytes:
    return binascii.a2b_base64(text)


def test_a_custodian_cosigns_another(custodian: Running, tmp_path: Path) -> None:
    other = note.NoteSigner("custodian.example/rome", note.ED25519, private(77))
    auditor = client_certificate(str(tmp_path), custodian.site.authority(), "rome")
    changed = replace(custodian.site.settings(), auditors={"rome": auditor.hash}, logs=(other.key,))
    Path(custodian.site.path("custodian.toml")).write_bytes(site_settings.serialise(changed))
    custodian.endpoints.house = custodian.house()
    wire = custodian.wire(auditor)
    root = merkle.leaf_hash(b"entry")
    offered = checkpoint.sign(checkpoint.Checkpoint(origin=other.key.name, size=1, root=root), other)

    def ask(signed: bytes, origin: str = other.key.name) -> Any:
        table = {"origin": origin, "checkpoint": strict_json.to_base64(signed), "hashes": []}
        return wire.ask("/v1/cosign", strict_json.serialise(table))

    assert wire.ask(f"/v1/witnessed?origin={other.key.name}").status == 404
    cosigner = custodian.site.cosigner(custodian.site.settings()).key
    found = checkpoint.verify(ask(offered).body, other.key, (cosigner,), 1)
    assert found.checkpoint.size == 1
    again = wire.ask(f"/v1/witnessed?origin={other.key.name}").body
    assert checkpoint.verify(again, other.key, (cosigner,), 1).checkpoint == found.checkpoint
    fork = checkpoint.sign(checkpoint.Checkpoint(origin=other.key.name, size=1, root=bytes(32)), other)
    assert ask(fork).status == 400
    assert ask(offered, "custodian.example/oslo").status == 403
    assert custodian.wire().ask("/v1/cosign", b"{}").status == 403, "a machine is no auditor"


def test_another_authority_may_vouch_for_auditors_and_not_for_machines(memory_path: str, tmp_path: Path) -> None:
    with Running(memory_path) as custodian:
        custodian.deposit()
        friend = a_site(str(tmp_path / "friend")).authority()
        with open(custodian.site.path("clients.pem"), "ab") as file:
            file.write(friend.certificate.public_bytes(Encoding.PEM))
        custodian.server.reload(custodian.manner())
        foreign = client_certificate(str(tmp_path), friend, "web-1")
        with custodian.store() as store:
            store._database.execute("UPDATE machine SET client_key = ?", (foreign.hash,))
        answered = custodian.wire(foreign).ask("/v1/challenge", release_messages.challenge_request(FRAGMENT))
        assert (answered.status, answered.problem) == (403, "no challenge for this client: of another authority")
