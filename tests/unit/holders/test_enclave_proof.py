# SPDX-License-Identifier: Apache-2.0
"""What an enclave must prove before a machine tells it anything, under test roots; each refusal names its check."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian.http_head import Answer
from keyquorum.envelope import dsse
from keyquorum.envelope.signing import Owner as Signer
from keyquorum.errors import HolderError, KeyquorumError, RefusedError, TamperingError, UnavailableError
from keyquorum.evidence import bundle, enclave_binding
from keyquorum.evidence.bundle import Bundle
from keyquorum.evidence.enclave_binding import EnclaveBinding
from keyquorum.evidence.wanted import ChipWanted, wanted
from keyquorum.model import enclave_messages, release_messages, strict_json
from keyquorum.model.enclave_messages import EVIDENCE_TYPE, EvidenceQuestion
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import SIGNER
from unit.evidence import snp_maker
from unit.evidence.tpm_maker import NOW, signed
from unit.holders.enclaves import CLIENT, MAKERS, NAME, ROOTS, SEALING_KEY, TLS_KEY, Enclave, Owner, Software

STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(b"\x63" * 32))


def refused(
    tmp_path: Path, enclave: Enclave, owner: Owner | None = None, technology: str = "snp", **changes: Any
) -> HolderError:
    with pytest.raises(HolderError) as caught:
        (owner or Owner(str(tmp_path), technology)).demand(enclave, **changes)
    return caught.value


@pytest.mark.parametrize("technology", MAKERS)
def test_a_genuine_enclave_proves_itself(tmp_path: Path, technology: str) -> None:
    collector = Software(technology)
    Owner(str(tmp_path), technology).demand(Enclave(collector))
    assert [len(nonce) for nonce in collector.nonces] == [32 if technology == "azure-snp" else 64]


def test_every_question_has_another_nonce(tmp_path: Path) -> None:
    collector = Software("snp")
    for _ in range(2):
        Owner(str(tmp_path), "snp").demand(Enclave(collector))
    assert len(set(collector.nonces)) == 2


def test_nothing_of_the_machine_is_in_the_question(tmp_path: Path) -> None:
    enclave = Enclave(Software("snp"))
    Owner(str(tmp_path), "snp").demand(enclave)
    asked = [strict_json.parse(body, "x", 1 << 16, KeyquorumError) for body in enclave.requests]  # type: ignore[arg-type]
    assert [sorted(table) for table in asked] == [["epoch", "index", "nonce", "set", "version", "volume"]]


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "another guest": ("snp", {"report": {0x90: bytes(48)}}, "snp.measurement"),
    "debugging": ("snp", {"report": {0x08: (1 << 17 | 1 << 19 | 0x0131).to_bytes(8, "little")}}, "snp.policy.debug"),
    "another chip's key": ("snp", {"signer": 45}, "snp.signature.value"),
    "another trust domain": ("tdx", {"body": {"mrtd": bytes(48)}}, "tdx.mrtd"),
    "a domain that is debugged": (
        "tdx",
        {"body": {"attributes": (1 << 28 | 1).to_bytes(8, "little")}},
        "tdx.attributes.debug",
    ),
    "collateral of last year": (
        "tdx",
        {"info": {"issueDate": "2026-01-10T00:00:00Z", "nextUpdate": "2026-02-09T00:00:00Z"}},
        "intel.tcb-info.current",
    ),
    "another image": ("nitro", {"pcrs": {0: b"\x01" * 48}}, "nitro.pcr"),
    "an enclave that is debugged": ("nitro", {"pcrs": {n: bytes(48) for n in range(3)}}, "nitro.debug"),
    "no Secure Boot": ("azure-snp", {"runtime": {"vm-configuration": {}}}, "hcl."),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_machine_is_named(tmp_path: Path, wrong: str) -> None:
    technology, changes, check = WRONG[wrong]
    error = refused(tmp_path, Enclave(Software(technology, changes)), technology=technology)
    assert error.message.startswith(f"{NAME} is not the enclave that it should be: {check}")
    assert error.message.endswith("(with TEST ROOTS)")
    assert isinstance(error, RefusedError)
    assert error.tampered


NONCE_CHECKS = {
    "snp": "snp.report-data",
    "tdx": "intel.quote.report-data",
    "nitro": "nitro.nonce",
    "azure-snp": "tpm.attest.nonce",
}
FOREIGN: dict[str, dict[str, Any]] = {
    "the evidence of one behind it": {"tls_key": b"the key of another connection"},
    "another sealing key": {"sealing": b"a key that is not in the enclave"},
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("technology", MAKERS)
def test_evidence_for_other_keys_is_refused(tmp_path: Path, technology: str, foreign: str) -> None:
    error = refused(tmp_path, Enclave(Software(technology), **FOREIGN[foreign]), technology=technology)
    assert NONCE_CHECKS[technology] in error.message


@pytest.mark.parametrize("technology", MAKERS)
def test_evidence_of_yesterday_is_refused(tmp_path: Path, technology: str) -> None:
    collector = Software(technology)
    Owner(str(tmp_path), technology).demand(Enclave(collector))
    old = collector.nonces[0]
    collector.ask_for = lambda _nonce: old
    assert NONCE_CHECKS[technology] in refused(tmp_path, Enclave(collector), technology=technology).message


def test_evidence_for_another_deposit_is_refused(tmp_path: Path) -> None:
    """An enclave that answers the question, but had itself attested for another fragment."""
    owner, enclave = Owner(str(tmp_path), "snp"), Enclave(Software("snp"))
    honest = enclave.prover.prove

    class Lying:
        def prove(self, store: Any, client: Any, question: EvidenceQuestion) -> dict[str, Any]:
            other = question.with_(fragment=question.fragment.with_(index=9))
            payload = dsse.parse(honest(store, client, other), "x").payload
            table = strict_json.parse(payload, "x", 1 << 16, KeyquorumError)  # type: ignore[arg-type]
            return SIGNER.sign(EVIDENCE_TYPE, strict_json.serialise(table | {"index": question.fragment.index}))

    lying: Any = Lying()
    enclave.prover = lying
    assert "snp.report-data" in refused(tmp_path, enclave, owner).message


def test_the_makers_roots_do_not_vouch_for_it(tmp_path: Path) -> None:
    error = refused(tmp_path, Enclave(Software("snp")), Owner(str(tmp_path), "snp", test_roots=False))
    assert "snp.chain.root" in error.message
    assert "TEST ROOTS" not in error.message


def test_the_root_of_another_maker_does_not_either(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    other = ROOTS["nitro"]()
    owner.write("roots.pem", other)
    error = refused(tmp_path, Enclave(Software("snp")), owner, test_roots_hash=hashlib.sha256(other).digest())
    assert "snp.chain.root" in error.message


@pytest.mark.parametrize("data", [b"", b"another file"])
def test_roots_that_were_changed_are_refused(tmp_path: Path, data: bytes) -> None:
    owner = Owner(str(tmp_path), "snp")
    owner.write("roots.pem", data)
    assert "another file than at the enrolment" in refused(tmp_path, Enclave(Software("snp")), owner).message


def test_a_policy_must_be_there_and_the_owners_and_not_older(tmp_path: Path) -> None:
    owner, enclave = Owner(str(tmp_path), "snp"), Enclave(Software("snp"))
    first = owner.policies[0]
    old = (first.with_(serial=first.serial + 1),)
    assert "policy.serial" in refused(tmp_path, enclave, owner, policies=old).message
    assert "policy.signature" in refused(tmp_path, enclave, owner, signer=STRANGER.public.raw).message
    assert "policy.validity" in refused(tmp_path, enclave, owner, now=1 << 40).message
    os.unlink(first.path)
    assert f"the appraisal policy {first.path} is missing" in refused(tmp_path, enclave, owner).message


@pytest.mark.parametrize("technology", ["tdx", "nitro", "azure-snp"])
def test_the_policies_say_which_technology_counts(tmp_path: Path, technology: str) -> None:
    error = refused(tmp_path, Enclave(Software(technology)), Owner(str(tmp_path), "snp"))
    assert error.message.startswith(f"{NAME} proves itself by {technology}, which its appraisal policy is not for")


def test_a_plain_tpm_is_no_enclave(tmp_path: Path) -> None:
    quote = Bundle(technology="tpm", parts={"attest": b"a", "signature": b"s", "pcrs": b""})
    enclave = Enclave(Software("snp", spoil=lambda _bundle: quote))
    assert "proves itself by tpm" in refused(tmp_path, enclave).message


def test_what_the_store_has_makes_it_whole(tmp_path: Path) -> None:
    """A host gives no certificates with its report; they were fetched before, and are in the image."""
    collector = Software("snp", spoil=lambda given: Bundle(technology="snp", parts={"report": given.part("report")}))
    owner, enclave = Owner(str(tmp_path), "snp"), Enclave(collector)
    assert "snp.chain.certificates" in refused(tmp_path, enclave, owner).message
    whole = MAKERS["snp"](bytes(64))
    need = wanted(whole)
    assert isinstance(need, ChipWanted)
    leaf, *rest = bundle.split_certificates(whole.part("certificates"))
    os.mkdir(owner.attested.collateral)
    owner.write(f"store/{need.leaf}", leaf)
    chain = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in rest]
    owner.write(f"store/{need.chain}", b"".join(chain))
    owner.demand(enclave)


def resigned(answer: Answer) -> Answer:
    envelope, _ = release_messages.parse_answer_body(answer.body)
    payload = dsse.parse(envelope, "x").payload
    return dataclasses.replace(answer, body=release_messages.answer_body(STRANGER.sign(EVIDENCE_TYPE, payload)))


def of_another(answer: Answer) -> Answer:
    envelope, _ = release_messages.parse_answer_body(answer.body)
    payload = dsse.parse(envelope, "x").payload.replace(NAME.encode(), b"eu-2.example")
    return dataclasses.replace(answer, body=release_messages.answer_body(SIGNER.sign(EVIDENCE_TYPE, payload)))


ANSWERS: dict[str, tuple[Callable[[Answer], Answer], type[KeyquorumError], str]] = {
    "no enclave": (lambda a: dataclasses.replace(a, status=404), UnavailableError, "does not prove what it is"),
    "busy": (lambda a: dataclasses.replace(a, status=503), UnavailableError, "is not ready"),
    "signed by a stranger": (resigned, TamperingError, "signed by"),
    "of another custodian": (of_another, TamperingError, "eu-2.example"),
    "no message": (lambda a: dataclasses.replace(a, body=b"{}"), TamperingError, "envelope"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_none(tmp_path: Path, answer: str) -> None:
    change, kind, words = ANSWERS[answer]
    enclave = Enclave(Software("snp"))
    enclave.change = change
    with pytest.raises(kind, match=words):
        Owner(str(tmp_path), "snp").demand(enclave)


def test_a_device_that_gives_nothing_is_a_busy_custodian(tmp_path: Path) -> None:
    def fail(_bundle: Bundle) -> Bundle:
        raise UnavailableError("the device is asleep")

    error = refused(tmp_path, Enclave(Software("snp", spoil=fail)))
    assert isinstance(error, UnavailableError)
    assert "the device is asleep" in error.message


@pytest.mark.parametrize("who", ["nobody", "revoked", "another name"])
def test_only_an_enrolled_machine_is_answered(tmp_path: Path, who: str) -> None:
    enclave = Enclave(Software("snp"))
    assert enclave.machine is not None
    changed = {"nobody": None, "revoked": {"revoked": True}, "another name": {"name": "web-2"}}[who]
    enclave.machine = None if changed is None else dataclasses.replace(enclave.machine, **changed)
    assert "no enrolled machine" in refused(tmp_path, enclave).message


def test_a_log_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    collector = Software("azure-snp", spoil=lambda given: given.with_part("log", bytes(40_000)))
    error = refused(tmp_path, Enclave(collector), technology="azure-snp")
    assert "tpm.log" in error.message


BINDING = EnclaveBinding(
    nonce=bytes(32), custodian=NAME, signing_key=bytes(32), tls_key=TLS_KEY, sealing_key=SEALING_KEY, fragment=FRAGMENT
)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"\x01" * 32},
        {"custodian": "eu-1.exampl"},
        {"signing_key": b"\x01" * 32},
        {"tls_key": TLS_KEY[:-1]},
        {"sealing_key": b"y" + SEALING_KEY},
        {"fragment": FRAGMENT.with_(epoch=FRAGMENT.epoch + 1)},
        {"fragment": FRAGMENT.with_(index=FRAGMENT.index + 1)},
        {"fragment": FRAGMENT.with_(set_id=bytes(16))},
        {"tls_key": TLS_KEY + SEALING_KEY[:1], "sealing_key": SEALING_KEY[1:]},
    ],
)
def test_every_part_is_bound(change: dict[str, Any]) -> None:
    assert enclave_binding.report_data(BINDING.with_(**change)) != enclave_binding.report_data(BINDING)


@pytest.mark.parametrize("change", [{"nonce": bytes(31)}, {"custodian": ""}, {"signing_key": b""}, {"tls_key": b""}])
def test_what_cannot_be_bound_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(KeyquorumError, match="wrong size"):
        enclave_binding.report_data(BINDING.with_(**change))


def test_the_bytes_that_are_bound_are_these() -> None:
    """Pinned: an enclave and a machine of unlike versions must agree."""
    parts: tuple[bytes, ...] = (b"keyquorum/v1/enclave", bytes(32), NAME.encode(), bytes(32), TLS_KEY, SEALING_KEY)
    parts += (FRAGMENT.volume.encode(), FRAGMENT.set_id + bytes((FRAGMENT.index,)), FRAGMENT.epoch.to_bytes(4, "big"))
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert enclave_binding.report_data(BINDING) == hashlib.sha512(message).digest()
    assert enclave_binding.qualifying_data(BINDING) == hashlib.sha256(hashlib.sha512(message).digest()).digest()


def test_a_policy_of_the_same_file_may_be_renewed(tmp_path: Path) -> None:
    """A new measurement of the enclave needs a new file, and no enrolment."""
    owner = Owner(str(tmp_path), "snp")
    enclave = Enclave(Software("snp", {"report": {0x90: b"\x07" * 48}}))
    assert "snp.measurement" in refused(tmp_path, enclave, owner).message
    table = snp_maker.policy_table(serial=2, measurement=["07" * 48])
    owner.write("policy-0.signed", signed(table, kind=owner.policies[0].kind))
    owner.demand(enclave, now=NOW)


def test_the_question_is_read_strictly() -> None:
    question = EvidenceQuestion(fragment=FRAGMENT, nonce=bytes(32))
    data = enclave_messages.request(question)
    assert enclave_messages.parse_request(data) == question
    for wrong in (data[:-1], data.replace(b'"version":1', b'"version":2'), data.replace(b"00" * 32, b"00" * 31)):
        with pytest.raises(TamperingError):
            enclave_messages.parse_request(wrong)


def test_the_client_of_these_tests_is_the_one_enrolled() -> None:
    machine = Enclave(Software("snp")).machine
    assert machine is not None
    assert (machine.name, machine.client_key) == (CLIENT.name, CLIENT.key)
