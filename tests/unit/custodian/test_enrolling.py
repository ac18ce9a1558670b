# SPDX-License-Identifier: Apache-2.0
"""Enrolling machines: token, keys, credential, certificate. (With a TPM: tests/devices/test_custodian_machine.py.)"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.custodian import authority
from keyquorum.custodian.enrolling import Door, Reception
from keyquorum.custodian.store_enrolment import TOKEN_LIFE, Enrolments, Offer
from keyquorum.envelope import dsse
from keyquorum.envelope.signing import Owner
from keyquorum.errors import KeyquorumError, MalformedError, RefusedError, TamperingError, UsageError
from keyquorum.evidence import certificate, ek_certificate, tpm_public
from keyquorum.model import enrolment_messages
from keyquorum.model.enrolment_messages import Enrolment, MachineCertificate
from unit.custodian.notes import ORIGIN, private
from unit.custodian.offices import FLEET, NOW, SIGNER, Custodian, WebServer
from unit.custodian.stores import OPERATOR
from unit.evidence import ca_maker
from unit.evidence.tpm_maker import AK_ATTRIBUTES, EK, Key

TOKEN = bytes(range(50, 66))
TLS = ec.generate_private_key(ec.SECP256R1())
MINE = private(60)  # Ed25519, as machines have it
AK = Key(number=3)
AUTHORITY = authority.found(ORIGIN, NOW)
LABELS = {"region": "eu-north", "country": "NO", "operator": "acme"}


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@pytest.fixture
def custodian(tmp_path: Path) -> Custodian:
    made = Custodian(tmp_path, WebServer())
    listed = ek_certificate.key_hash(tpm_public.parse(EK.area, "EK"))
    Enrolments(made.store).offer(TOKEN, Offer(machine="db-1", labels=LABELS, listed_ek=listed), OPERATOR, NOW)
    return made


def enrolment(**changes: Any) -> Enrolment:
    ak = changes.pop("key", AK)
    parts: dict[str, Any] = {
        "custodian": ORIGIN,
        "machine": "db-1",
        "token": TOKEN,
        "owner": FLEET.public.raw,
        "tls_key": spki(TLS),
        "ek": EK.area,
        "ak": ak.area,
        "ak_name": tpm_public.parse(ak.area, "AK").name,
        "under_ek": False,
    }
    return Enrolment(**(parts | changes))


def enrol(
    custodian: Custodian, asked: Enrolment, answer: bytes = b"", owner: Owner = FLEET, proof: bytes | None = None
) -> dict[str, Any]:
    payload = enrolment_messages.enrolment_payload(asked)
    envelope = owner.sign(enrolment_messages.ENROLMENT_TYPE, payload)
    signed = possession(payload, answer) if proof is None and answer else proof or b""
    body = enrolment_messages.enrolment_body(envelope, answer, signed)
    return Reception(custodian.store, custodian.office, Door(authority=AUTHORITY)).enrol(body)


def possession(payload: bytes, answer: bytes, key: Any = TLS, digest: Any = None) -> bytes:
    message = enrolment_messages.possession_message(payload, answer)
    signed: bytes = key.sign(message, *((ec.ECDSA(digest or hashes.SHA256()),) if key is not MINE else ()))
    return signed


def secret(custodian: Custodian, asked: Enrolment) -> bytes:
    """What the TPM would decrypt."""
    return custodian.sealing.enrolment_secret(enrolment_messages.enrolment_payload(asked))


def certified(envelope: dict[str, Any]) -> MachineCertificate:
    payload = dsse.verify(dsse.parse(envelope, ""), enrolment_messages.CERTIFICATE_TYPE, (SIGNER.public,))
    return enrolment_messages.parse_certificate(payload, ORIGIN, "db-1")


def test_from_the_token_to_the_certificate(custodian: Custodian) -> None:
    asked = enrolment()
    made = enrol(custodian, asked)
    payload = dsse.verify(dsse.parse(made, ""), enrolment_messages.CREDENTIAL_TYPE, (SIGNER.public,))
    credential = enrolment_messages.parse_credential(payload, ORIGIN, "db-1")
    assert secret(custodian, asked) not in credential.id_object + credential.encrypted_secret
    found = certified(enrol(custodian, asked, secret(custodian, asked)))
    certificate = x509.load_der_x509_certificate(found.certificate)
    assert authority.labels_of(certificate) == ("db-1", LABELS)
    assert AUTHORITY.issued(certificate)
    machine = custodian.store.machine_of(hashlib.sha256(authority.key_der(certificate)).digest())
    assert machine is not None
    assert (machine.name, machine.attestation_key) == ("db-1", AK.area)
    assert machine.qualified_name == AK.enrolled.qualified_name
    assert found.sealing == custodian.sealing.public
    acts = [custodian.store.log.entry(number).act for number in range(found.number - 1, custodian.store.log.size)]
    assert acts == ["offered-enrolment", "enrolled-machine", "admitted-owner"]
    assert TOKEN.hex() not in "".join(
        custodian.store.log.body(number).decode() for number in range(custodian.store.log.size)
    )


def refused(custodian: Custodian, asked: Enrolment, error: type[KeyquorumError], words: str, **how: Any) -> None:
    with pytest.raises(error, match=words):
        enrol(custodian, asked, **how)
    with pytest.raises(UsageError, match="no machine db-1"):
        custodian.store.revoke_machine("db-1", OPERATOR, NOW, "")


def test_a_token_lets_one_machine_in_once(custodian: Custodian) -> None:
    asked = enrolment()
    refused(custodian, enrolment(token=bytes(16)), RefusedError, "token is unknown")
    refused(custodian, enrolment(machine="web-2"), RefusedError, "token is for db-1, not for web-2")
    custodian.clock.now = NOW + TOKEN_LIFE
    refused(custodian, asked, RefusedError, "token is expired", answer=secret(custodian, asked))
    custodian.clock.now = NOW
    enrol(custodian, asked, secret(custodian, asked))
    with pytest.raises(RefusedError, match="token is spent"):
        enrol(custodian, asked, secret(custodian, asked))


def test_a_wrong_answer_lets_nobody_in(custodian: Custodian) -> None:
    asked, other = enrolment(), enrolment(key=Key(number=4))
    for answer in (bytes(32), b"short", secret(custodian, other)):
        refused(custodian, asked, RefusedError, r"tpm\.ak\.bound", answer=answer)
        last = custodian.last
        assert (last.act, last.machine, last.checks[0].name) == ("denied", "db-1", "tpm.ak.bound")
    enrol(custodian, asked, secret(custodian, asked))


def test_who_has_not_the_tls_key_gets_no_certificate_for_it(custodian: Custodian) -> None:
    """An owner with a token and a TPM, and the public key of another machine."""
    asked = enrolment()
    payload, answer = enrolment_messages.enrolment_payload(asked), secret(custodian, asked)
    other = enrolment_messages.enrolment_payload(enrolment(machine="web-2"))
    for proof, words in (
        (b"", "no signature"),
        (b"junk", "does not match"),
        (possession(payload, answer, ec.generate_private_key(ec.SECP256R1())), "does not match"),
        (possession(other, answer), "does not match"),
        (possession(payload, bytes(32)), "does not match"),
        (TLS.sign(payload + answer, ec.ECDSA(hashes.SHA256())), "does not match"),
    ):
        refused(custodian, asked, RefusedError, rf"machine\.tls-key: .*{words}", answer=answer, proof=proof)
        assert (custodian.last.act, custodian.last.checks[0].name) == ("denied", "machine.tls-key")
    enrol(custodian, asked, answer)


@pytest.mark.parametrize(("key", "digest"), [(MINE, None), (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())])
def test_every_kind_of_tls_key_shows_itself(custodian: Custodian, key: Any, digest: Any) -> None:
    asked = enrolment(tls_key=spki(key))
    payload, answer = enrolment_messages.enrolment_payload(asked), secret(custodian, asked)
    assert certified(enrol(custodian, asked, answer, proof=possession(payload, answer, key, digest))).number


def test_keys_that_are_none_get_no_credential(custodian: Custodian) -> None:
    unlisted = replace(EK, number=2)
    cases: dict[str, dict[str, Any]] = {
        r"tpm\.ak\.attributes": {"key": Key(number=3, attributes=AK_ATTRIBUTES & ~0x10000)},
        r"tpm\.ak\.structure": {"ak": b"junk"},
        r"tpm\.ek\.structure": {"ek": b""},
        r"tpm\.ek\.attributes": {"ek": AK.area},
        r"tpm\.ek\.certificate": {"ek": unlisted.area},
    }
    for words, changes in cases.items():
        refused(custodian, enrolment(**changes), RefusedError, words)


def test_a_maker_vouches_for_a_key_that_nobody_listed(custodian: Custodian) -> None:
    token = b"\x07" * 16
    Enrolments(custodian.store).offer(token, Offer(machine="db-1", labels={}), OPERATOR, NOW)
    leaf = ca_maker.der(ca_maker.endorsement(tpm_public.parse(EK.area, "EK").key))
    asked = enrolment(token=token, certificates=(leaf, ca_maker.der(ca_maker.intermediate())))
    payload = enrolment_messages.enrolment_payload(asked)
    body = enrolment_messages.enrolment_body(FLEET.sign(enrolment_messages.ENROLMENT_TYPE, payload))
    with pytest.raises(RefusedError, match=r"tpm\.ek\.chain"):
        Reception(custodian.store, custodian.office, Door(authority=AUTHORITY)).enrol(body)
    door = Door(authority=AUTHORITY, ek_roots=(certificate.load(ca_maker.der(ca_maker.root()), "root"),))
    made = Reception(custodian.store, custodian.office, door).enrol(body)
    assert dsse.parse(made, "").payload_type == enrolment_messages.CREDENTIAL_TYPE


def test_messages_that_are_not_whole(custodian: Custodian) -> None:
    refused(custodian, enrolment(), TamperingError, "signed by", owner=Owner(private(41)))
    refused(custodian, enrolment(custodian="another.example"), TamperingError, "is another.example")
    asked = enrolment(tls_key=b"junk")
    refused(custodian, asked, TamperingError, "no SubjectPublicKeyInfo", answer=secret(custodian, asked))
    weak = enrolment(tls_key=spki(rsa.generate_private_key(65537, 2048)))
    refused(custodian, weak, TamperingError, "neither Ed25519", answer=secret(custodian, weak))


def test_a_token_that_was_spent_meanwhile(custodian: Custodian) -> None:
    """Two machines, one token: whoever is first is in."""
    one, two = enrolment(), enrolment(key=Key(number=4))
    first, second = secret(custodian, one), secret(custodian, two)
    enrol(custodian, one, first)
    with pytest.raises(RefusedError, match="token is spent"):
        enrol(custodian, two, second)


def test_offers_that_are_none(custodian: Custodian) -> None:
    enrolments = Enrolments(custodian.store)
    with pytest.raises(UsageError, match="has or had this name"):
        enrolments.offer(bytes(16), Offer(machine="web-1", labels={}), OPERATOR, NOW)
    for token, listed in ((b"short", b""), (bytes(16), b"short")):
        with pytest.raises(MalformedError):
            enrolments.offer(token, Offer(machine="db-2", labels={}, listed_ek=listed), OPERATOR, NOW)
