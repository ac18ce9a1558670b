# SPDX-License-Identifier: Apache-2.0
"""What devices are asked and answer, as bytes: the host's table of certificates, the security module's messages."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import MalformedError, TamperingError, UnavailableError
from keyquorum.evidence import bundle, cbor, certificate, nsm_messages, snp_table
from unit.evidence.bundle_maker import sample
from unit.evidence.nitro_maker import encode

VCEK, VLEK = "63da758de6644564adc5f4b93be8accd", "a8074bc2a25a483eaae639c045a0b8a1"
ASK, ARK = "4ab7b379bbac4fe4a02f05aef327c782", "c0b406a4a803495297433fb6014cd0ae"
CRL, OTHER = "92f81bc358114d3d97ffd19f88dc67ea", "00112233445566778899aabbccddeeff"
CHAIN = bundle.split_certificates(sample("snp").bundle.part("certificates"))


def table(*rows: tuple[str, bytes], end: bytes = bytes(24)) -> bytes:
    """Return a table as a host lays it out."""
    at, entries, content = (len(rows) + 1) * 24, b"", b""
    for guid, data in rows:
        entries += bytes.fromhex(guid) + struct.pack("<II", at + len(content), len(data))
        content += data
    return entries + end + content


WHOLE = table((VCEK, CHAIN[0]), (ASK, CHAIN[1]), (ARK, CHAIN[2]))


def test_a_table_gives_the_chain_in_its_order() -> None:
    found = snp_table.parse(WHOLE + bytes(100))
    assert found.chain == b"".join(CHAIN)
    assert (
        snp_table.parse(table((ARK, CHAIN[2]), (OTHER, b"?"), (ASK, CHAIN[1]), (VLEK, CHAIN[0]))).chain == found.chain
    )
    assert snp_table.parse(table((CRL, b"list"))).revocations == b"list"
    assert snp_table.is_table(WHOLE)
    assert not snp_table.is_table(CHAIN[0])


def test_a_host_without_certificates() -> None:
    for empty in (b"", bytes(24), bytes(0x4000)):
        found = snp_table.parse(empty)
        assert (found.chain, found.revocations) == (b"", b"")


def test_pem_where_der_belongs_is_read_too() -> None:
    """It is not a genuine chip's, whose serial number PEM tools of the library do not take."""
    loaded = certificate.load(CHAIN[2], "root").parsed
    armoured = loaded.public_bytes(Encoding.PEM)
    assert snp_table.parse(table((ARK, armoured + b"\x00"))).root == CHAIN[2]
    with pytest.raises(TamperingError):
        snp_table.parse(table((ARK, armoured + armoured)))


WRONG = {
    "too long": bytes(70_000),
    "no end": WHOLE[:72],
    "cut": WHOLE[:-1],
    "twice": table((ASK, CHAIN[1]), (ASK, CHAIN[1])),
    "both leaves": table((VCEK, CHAIN[0]), (VLEK, CHAIN[0])),
    "no name": table((VCEK, b"x"), end=bytes(16) + b"\x01" + bytes(7)),
    "into the entries": bytes.fromhex(VCEK) + struct.pack("<II", 24, 24) + bytes(24),
    "endless": bytes.fromhex(VCEK) + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_tables_are_refused(case: str) -> None:
    with pytest.raises(TamperingError):
        snp_table.parse(WRONG[case])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 96), st.binary(min_size=1, max_size=12))
def test_a_spoiled_table_is_read_or_refused(at: int, value: bytes) -> None:
    spoiled = WHOLE[:at] + value + WHOLE[at + len(value) :]
    try:
        found = snp_table.parse(spoiled)
    except TamperingError:
        return
    assert all(part in spoiled for part in (found.leaf, found.intermediate, found.root, found.revocations))


def test_the_question_to_the_security_module() -> None:
    asked = nsm_messages.attestation(b"n" * 32)
    fields = {"user_data": None, "nonce": b"n" * 32, "public_key": None}
    assert cbor.parse(asked, "request", nsm_messages.MAX_REQUEST) == {"Attestation": fields}
    assert asked == encode({"Attestation": fields})
    for wrong in (b"", bytes(513)):
        with pytest.raises(MalformedError):
            nsm_messages.attestation(wrong)


def test_its_answers() -> None:
    assert nsm_messages.document(encode({"Attestation": {"document": b"doc"}})) == b"doc"
    with pytest.raises(UnavailableError, match="InvalidOperation"):
        nsm_messages.document(encode({"Error": "InvalidOperation"}))
    answers: tuple[Any, ...] = (
        {"Attestation": {"document": b""}}, {"Attestation": {}}, {"Attestation": {"document": "text"}}, {}, [], b"doc",
        {"Attestation": {"document": b"doc", "more": b""}}, {"Attestation": {"document": b"doc"}, "Error": "x"},
    )  # fmt: skip
    for wrong in answers:
        with pytest.raises(TamperingError):
            nsm_messages.document(encode(wrong))
    with pytest.raises(TamperingError):
        nsm_messages.document(b"")
