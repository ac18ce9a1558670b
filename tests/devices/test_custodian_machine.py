# SPDX-License-Identifier: Apache-2.0
"""A machine with a real TPM emulator and a custodian over TLS: enrolment, deposit, release, and what must not work."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.custodian_site import EVER, ORIGIN, Answered, Identity, Running, Wire
from devices.test_attestation import AK_ATTRIBUTES, PCRS, Machine
from devices.tpm_emulator import Emulator
from devices.tpm_support import extend, second_opinion
from keyquorum.custodian import authority
from keyquorum.custodian.decision import question_of
from keyquorum.custodian.store_enrolment import Enrolments, Offer
from keyquorum.envelope import dsse, hpke, recipient_key
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import TamperingError
from keyquorum.evidence import ek_certificate, tpm_public
from keyquorum.model import deposit_messages, enrolment_messages, release_messages, strict_json
from keyquorum.model.deposit_messages import DepositRequest, SealedIdentity
from keyquorum.model.enrolment_messages import Enrolment
from keyquorum.model.release_messages import Denied, Released, ReleaseRequest, TpmEvidence
from keyquorum.secret import Identity as Seed
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import FLEET, SECRET, policy
from unit.custodian.stores import OPERATOR
from unit.evidence.tpm_maker import policy_table, signed

TOKEN = b"\x05" * 16
NAME = "db-1"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        for pcr in PCRS:
            extend(emulator.device, pcr, b"%d" % pcr)
        yield emulator


@pytest.fixture
def custodian(memory_path: str) -> Iterator[Running]:
    with Running(memory_path) as running:
        yield running


class Host:
    """A machine that goes through everything: enrolled by its owner, who deposits, and then asking."""

    def __init__(self, machine: Machine, custodian: Running) -> None:
        self.machine, self.custodian = machine, custodian
        self.tls = ec.generate_private_key(ec.SECP256R1())
        self.one_time = Seed.from_view(b"\x21" * 32)
        self.wire = custodian.nobody()
        self.sealing: Recipient | None = None

    def offer(self) -> None:
        listed = ek_certificate.key_hash(tpm_public.parse(self.machine.ek_area, "EK"))
        with self.custodian.store() as store:
            Enrolments(store).offer(
                TOKEN, Offer(machine=NAME, labels={"country": "NO"}, listed_ek=listed), OPERATOR, int(time.time())
            )

    def request(self, **changes: Any) -> Enrolment:
        parts: dict[str, Any] = {
            "custodian": ORIGIN,
            "machine": NAME,
            "token": TOKEN,
            "owner": FLEET.public.raw,
            "tls_key": self.tls.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "ek": self.machine.ek_area,
            "ak": self.machine.ak_area,
            "ak_name": self.machine.ak_name,
            "under_ek": False,
        }
        return Enrolment(**(parts | changes))

    def ask_enrolment(self, asked: Enrolment, answer: bytes = b"") -> Answered:
        payload = enrolment_messages.enrolment_payload(asked)
        envelope = FLEET.sign(enrolment_messages.ENROLMENT_TYPE, payload)
        message = enrolment_messages.possession_message(payload, answer)
        proof = self.tls.sign(message, ec.ECDSA(hashes.SHA256())) if answer else b""
        return self.wire.ask("/v1/enroll", enrolment_messages.enrolment_body(envelope, answer, proof))

    def activated(self, asked: Enrolment) -> bytes:
        answered = self.ask_enrolment(asked)
        assert answered.status == 200, answered.body
        payload, _ = self.wire.signed(answered, enrolment_messages.CREDENTIAL_TYPE)
        credential = enrolment_messages.parse_credential(payload, ORIGIN, NAME)
        return self.machine.activate(credential.id_object, credential.encrypted_secret)

    def enrol(self) -> None:
        self.offer()
        asked = self.request()
        answered = self.ask_enrolment(asked, self.activated(asked))
        assert answered.status == 200, answered.body
        payload, _ = self.wire.signed(answered, enrolment_messages.CERTIFICATE_TYPE)
        found = enrolment_messages.parse_certificate(payload, ORIGIN, NAME)
        base = f"{self.custodian.directory}/{NAME}"
        certificate = x509.load_der_x509_certificate(found.certificate)
        Path(base + ".pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        Path(base + ".key").write_bytes(authority.key_pem(self.tls))
        self.sealing = recipient_key.parse("x-wing", found.sealing)
        self.wire = Wire(self.custodian.site, self.custodian.port, Identity(base + ".pem", base + ".key", b""))

    def deposit(self) -> None:
        assert self.sealing is not None
        rules = {str(pcr): [value.hex()] for pcr, value in self.machine.pcrs(PCRS).items()}
        reference = signed(policy_table(rules, log=None, firmware=None, **EVER), FLEET)
        release = policy(**EVER, machines=[NAME])
        with Seed.from_view(SECRET) as identity:
            enc, ciphertext = self.sealing.seal(identity, deposit_messages.sealing_info(ORIGIN, NAME, FRAGMENT))
        asked = DepositRequest(
            custodian=ORIGIN,
            owner=FLEET.public.raw,
            machine=NAME,
            fragment=FRAGMENT,
            sealed=SealedIdentity(enc=enc, ciphertext=ciphertext),
            policy=hashlib.sha256(release).digest(),
            reference=hashlib.sha256(reference).digest(),
        )
        envelope = FLEET.sign(deposit_messages.DEPOSIT_TYPE, deposit_messages.deposit_payload(asked))
        tables = [strict_json.parse(data, "", 1 << 16, TamperingError) for data in (release, reference)]
        answered = self.wire.ask("/v1/deposit", deposit_messages.deposit_body(envelope, *tables))
        assert answered.status == 200, answered.body

    def question(self) -> ReleaseRequest:
        nothing = TpmEvidence(attest=b"", signature=b"", pcrs=())
        key = recipient_key.encode(Recipient.of(self.one_time, hpke.X25519))
        return ReleaseRequest(nonce=self.wire.challenge(), fragment=FRAGMENT, kem="x25519", key=key, evidence=nothing)

    def ask(self, request: ReleaseRequest) -> Released | Denied:
        answered = self.wire.ask("/v1/release", release_messages.release_request(request))
        payload, _ = self.wire.signed(answered, release_messages.ANSWER_TYPE)
        found = release_messages.parse_answer(payload, question_of(ORIGIN, request))
        assert isinstance(found, (Released, Denied))
        assert answered.status == (200 if isinstance(found, Released) else 403)
        return found

    def quoted(self, request: ReleaseRequest, selection: str = "sha256:0,7,11") -> ReleaseRequest:
        made = self.machine.quote(question_of(ORIGIN, request), selection)
        evidence = TpmEvidence(attest=made.attest, signature=made.signature, pcrs=tuple(sorted(made.pcrs.items())))
        return request.with_(evidence=evidence)


def refused(host: Host, request: ReleaseRequest) -> str:
    found = host.ask(request)
    assert isinstance(found, Denied)
    return found.check


def test_a_machine_from_its_token_to_its_fragment(tpm: Emulator, custodian: Running) -> None:
    with second_opinion(tpm.device) as context:
        host = Host(Machine(tpm.device, context), custodian)
        host.enrol()
        host.deposit()
        request = host.quoted(host.question())
        found = host.ask(request)
        assert isinstance(found, Released)
        info = b"keyquorum/v1/release\x00" + question_of(ORIGIN, request)
        with hpke.open_sealed(hpke.X25519, host.one_time, found.enc, found.ciphertext, info) as identity:
            assert bytes(identity.view) == SECRET
        assert refused(host, request) == "nonce"
        assert refused(host, host.question().with_(evidence=request.evidence)) == "tpm.attest.nonce"
        lying = host.quoted(host.question(), "sha256:0,16,11")
        assert refused(host, lying) == "tpm.quote.pcrs"
        extend(tpm.device, 7, b"Secure Boot is off")
        assert refused(host, host.quoted(host.question())) == "tpm.pcr.values"
        honest = host.quoted(host.question())
        claimed = dict(honest.evidence.pcrs) | {7: dict(request.evidence.pcrs)[7]}
        liar = honest.with_(evidence=honest.evidence.with_(pcrs=tuple(sorted(claimed.items()))))
        assert refused(host, liar) == "tpm.quote.digest"
    assert dsse.PublicKey(raw=FLEET.public.raw).key_id


def test_who_is_not_enrolled(tpm: Emulator, custodian: Running) -> None:
    with second_opinion(tpm.device) as context:
        loose = Machine(tpm.device, context, attributes=AK_ATTRIBUTES.replace("restricted|", ""))
        host = Host(loose, custodian)
        host.offer()
        answered = host.ask_enrolment(host.request())
        assert (answered.status, "tpm.ak.attributes" in answered.problem) == (403, True)
        loose.forget()
        host = Host(Machine(tpm.device, context), custodian)
        asked = host.request()
        secret = host.activated(asked)
        moved = host.request(tls_key=ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        ))  # fmt: skip
        answered = host.ask_enrolment(moved, secret)
        assert (answered.status, "tpm.ak.bound" in answered.problem) == (403, True), "the secret is of one request"
        assert host.ask_enrolment(asked, secret).status == 200
        answered = host.ask_enrolment(asked, secret)
        assert (answered.status, answered.problem) == (403, "the token is spent")
