# SPDX-License-Identifier: Apache-2.0
"""Deposits and enrolments on the wire: what is written is read again, and nothing else is (docs/custodian.md §11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.model import deposit_messages, enrolment_messages, strict_json
from keyquorum.model.deposit_messages import Acknowledgement, DepositRequest, Retirement, SealedIdentity
from keyquorum.model.enrolment_messages import Enrolment, MachineCertificate, MachineCredential
from keyquorum.model.fragment_name import FragmentName

FRAGMENT = FragmentName(volume="6d1c7d1e-5ab0-4d6f-8b0e-000000000001", set_id=bytes(range(16)), epoch=3, index=2)
HERE, MACHINE = "custodian.example/paris", "web-1"
SEALED = SealedIdentity(enc=bytes(1120), ciphertext=bytes(48))
DEPOSIT = DepositRequest(
    custodian=HERE, owner=bytes(32), machine=MACHINE, fragment=FRAGMENT, sealed=SEALED, policy=b"\1" * 32, reference=b"\2" * 32
)  # fmt: skip
RETIREMENT = Retirement(custodian=HERE, owner=bytes(32), fragment=FRAGMENT)
ACKNOWLEDGEMENT = Acknowledgement(custodian=HERE, request=bytes(32), number=7, state="recorded")
ENROLMENT = Enrolment(
    custodian=HERE,
    machine=MACHINE,
    token=bytes(16),
    owner=bytes(32),
    tls_key=b"spki",
    ek=b"ek",
    ak=b"ak",
    ak_name=b"name",
    under_ek=True,
    certificates=(b"one", b"two"),
)
CREDENTIAL = MachineCredential(custodian=HERE, machine=MACHINE, id_object=b"id", encrypted_secret=b"secret")
CERTIFICATE = MachineCertificate(
    custodian=HERE, machine=MACHINE, number=3, certificate=b"leaf", authority=b"root", sealing=b"spki"
)
CASES: dict[str, tuple[object, bytes, Callable[[bytes], object]]] = {
    "deposit": (DEPOSIT, deposit_messages.deposit_payload(DEPOSIT), deposit_messages.parse_deposit),
    "replacement": (
        DEPOSIT.with_(sealed=None),
        deposit_messages.deposit_payload(DEPOSIT.with_(sealed=None)),
        deposit_messages.parse_deposit,
    ),
    "retirement": (RETIREMENT, deposit_messages.retirement_payload(RETIREMENT), deposit_messages.parse_retirement),
    "acknowledgement": (
        ACKNOWLEDGEMENT,
        deposit_messages.acknowledgement_payload(ACKNOWLEDGEMENT),
        lambda data: deposit_messages.parse_acknowledgement(data, HERE, bytes(32)),
    ),
    "enrolment": (ENROLMENT, enrolment_messages.enrolment_payload(ENROLMENT), enrolment_messages.parse_enrolment),
    "credential": (
        CREDENTIAL,
        enrolment_messages.credential_payload(CREDENTIAL),
        lambda data: enrolment_messages.parse_credential(data, HERE, MACHINE),
    ),
    "certificate": (
        CERTIFICATE,
        enrolment_messages.certificate_payload(CERTIFICATE),
        lambda data: enrolment_messages.parse_certificate(data, HERE, MACHINE),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read(name: str) -> None:
    made, payload, read = CASES[name]
    assert read(payload) == made
    table: dict[str, Any] = strict_json.parse(payload, "", 1 << 16, TamperingError)
    for field in table:
        for wrong in ({key: value for key, value in table.items() if key != field}, table | {field: []}):
            if field == "certificates" and wrong.get(field) == []:
                continue
            if field == "under_ek" and field not in wrong:
                continue
            with pytest.raises(TamperingError):
                read(strict_json.serialise(wrong))
    with pytest.raises(TamperingError, match="not known here"):
        read(strict_json.serialise(table | {"more": 1}))


@pytest.mark.parametrize("name", CASES)
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(name: str, junk: bytes) -> None:
    with pytest.raises(TamperingError):
        CASES[name][2](junk)


def test_answers_of_others_are_refused() -> None:
    payload = CASES["acknowledgement"][1]
    for custodian, request in (("another", bytes(32)), (HERE, b"\1" * 32)):
        with pytest.raises(TamperingError):
            deposit_messages.parse_acknowledgement(payload, custodian, request)
    for custodian, machine in (("another", MACHINE), (HERE, "db-1")):
        with pytest.raises(TamperingError):
            enrolment_messages.parse_credential(CASES["credential"][1], custodian, machine)
        with pytest.raises(TamperingError):
            enrolment_messages.parse_certificate(CASES["certificate"][1], custodian, machine)


def test_bodies() -> None:
    body = deposit_messages.deposit_body({"a": 1}, {"b": 2}, {"c": 3})
    assert deposit_messages.parse_deposit_body(body) == ({"a": 1}, b'{"b":2}', b'{"c":3}')
    assert enrolment_messages.parse_enrolment_body(enrolment_messages.enrolment_body({"a": 1})) == ({"a": 1}, b"", b"")
    for junk in (b"", b"[]", b'{"envelope":1,"policy":{},"reference":{}}', b'{"envelope":{},"answer":"!"}'):
        with pytest.raises(TamperingError):
            deposit_messages.parse_deposit_body(junk)
        with pytest.raises(TamperingError):
            enrolment_messages.parse_enrolment_body(junk)


def test_a_deposit_is_sealed_for_one_place() -> None:
    infos = {
        deposit_messages.sealing_info(*parts)
        for parts in (
            (HERE, MACHINE, FRAGMENT),
            ("another", MACHINE, FRAGMENT),
            (HERE, "db-1", FRAGMENT),
            (HERE, MACHINE, FRAGMENT.with_(index=3)),
        )
    }
    assert len(infos) == 4
    assert deposit_messages.parse_sealed(SEALED.serialise()) == SEALED
    with pytest.raises(TamperingError):
        deposit_messages.parse_sealed(SEALED.with_(enc=bytes(32)).serialise())
