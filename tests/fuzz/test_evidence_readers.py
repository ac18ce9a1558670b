# SPDX-License-Identifier: Apache-2.0
"""Every reader of evidence, fed with spoiled good input: a value or `TamperingError`, whatever comes.

Briefly here; `make fuzz` looks longer. Seeds are evidence under test roots, so this needs nothing beside the checkout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutation import edited
from keyquorum.custodian import appraisal_messages
from keyquorum.errors import TamperingError, UnavailableError
from keyquorum.evidence import (
    bundle,
    carried,
    cbor,
    certificate,
    distinguished_name,
    event_log,
    hcl_report,
    intel_bundle,
    intel_certificates,
    intel_collateral,
    intel_quote,
    nitro_document,
    nsm_messages,
    policy_review,
    recognise,
    result,
    snp_certificates,
    snp_report,
    snp_table,
    tpm_attest,
    tpm_public,
    tpm_signature,
    trial,
    wanted,
)
from keyquorum.evidence.bundle import TECHNOLOGIES
from keyquorum.evidence.result import Status
from keyquorum.model import enclave_messages, strict_json
from keyquorum.model.enclave_messages import EvidenceQuestion
from unit.custodian.notes import FRAGMENT
from unit.custodian.test_appraiser import a_request, appraised
from unit.evidence import intel_maker, tpm_maker
from unit.evidence.bundle_maker import sample
from unit.evidence.nitro_maker import encode
from unit.evidence.test_collect_formats import WHOLE

BRIEF = 60  # examples of a reader in the ordinary run
LONG = settings.get_profile("long").max_examples


class Target(NamedTuple):
    """A reader and something that it reads."""

    read: Callable[[bytes], object]
    seed: bytes


def _of(technology: str, part: str) -> bytes:
    return sample(technology).bundle.part(part)


def _json(table: object) -> bytes:
    return json.dumps(table).encode()


def _named(read: Callable[..., object]) -> Callable[[bytes], object]:
    return lambda data: read(data, "it")


def _platform(data: bytes) -> object:
    return intel_certificates.platform(certificate.load(data, "it"), "it")


def _answered(data: bytes) -> object:
    """An answer that says no is an answer."""
    try:
        return nsm_messages.document(data)
    except UnavailableError as refusal:
        return refusal.message


def _policies() -> dict[str, Target]:
    found = {}
    for technology in ("snp", "tdx", "sgx", "nitro", "tpm", "azure-snp"):
        (kind, table), *_ = sample(technology).policies
        found[f"policy {technology}"] = Target(policy_review.review, _json(table))
        found[f"signed policy {technology}"] = Target(
            lambda data: policy_review.review(data, (tpm_maker.OWNER.public,)), tpm_maker.signed(table, kind=kind)
        )
    return found


def _targets() -> dict[str, Target]:
    chain = bundle.split_certificates(_of("snp", "certificates"))
    pem = intel_maker.pck_chain()
    collateral = _of("tdx", "collateral")
    info, identity = intel_maker.tcb_info("tdx"), intel_maker.identity("tdx")
    leaf = certificate.load(certificate.from_pem(pem, "pem", len(pem))[0], "leaf").der
    key = sample("tpm").ak
    document = _of("nitro", "document")
    report = _of("azure-snp", "report")
    trusted = trial.judge(sample("snp").bundle, sample("snp").known())
    response = b'{"tcbInfo":' + _json(info) + b',"signature":"' + b"00" * 64 + b'"}'
    return {
        "snp report": Target(_named(snp_report.parse), _of("snp", "report")),
        "snp leaf": Target(_named(snp_certificates.load_leaf), chain[0]),
        "snp authority": Target(_named(snp_certificates.load_authority), chain[1]),
        "certificate": Target(_named(certificate.load), leaf),
        "certificate's extensions": Target(_platform, leaf),
        "certificates in pem": Target(partial(certificate.from_pem, what="it", cap=1 << 16), pem),
        "bundle in pem": Target(_named(certificate.load_bundle), pem),
        "revocation list": Target(_named(certificate.load_list), intel_maker.lists()[0]),
        "names of a certificate": Target(distinguished_name.of_certificate, leaf),
        "name of a list": Target(distinguished_name.of_list, intel_maker.lists()[0]),
        "name": Target(distinguished_name.text, distinguished_name.of_certificate(leaf)[2]),
        "quote tdx 4": Target(intel_quote.parse, _of("tdx", "quote")),
        "quote tdx 5": Target(intel_quote.parse, intel_maker.Scene(version=5).quote()),
        "quote sgx 3": Target(intel_quote.parse, _of("sgx", "quote")),
        "collateral": Target(intel_bundle.parse_bundle, collateral),
        "response": Target(partial(intel_bundle.unwrap, name="tcbInfo", what="it"), response),
        "tcb info": Target(_named(intel_collateral.parse_tcb_info), _json(info)),
        "qe identity": Target(_named(intel_collateral.parse_identity), _json(identity)),
        "cbor": Target(lambda data: cbor.parse(data, "it", 1 << 14, 18), document),
        "cose": Target(nitro_document.open_envelope, document),
        "nitro payload": Target(nitro_document.parse, nitro_document.open_envelope(document).payload),
        "tpms_attest": Target(_named(tpm_attest.parse), _of("tpm", "attest")),
        "tpmt_signature": Target(_named(tpm_signature.parse), _of("tpm", "signature")),
        "tpmt_public": Target(_named(tpm_public.parse), key),
        "event log": Target(_named(event_log.parse), _of("tpm", "log")),
        "ccel": Target(_named(event_log.parse), intel_maker.ccel((1, b"firmware"), (2, b"kernel"))),
        "hcl": Target(_named(hcl_report.parse), report),
        "runtime data": Target(hcl_report.parse_runtime, hcl_report.parse(report, "it").runtime),
        "bundle": Target(bundle.parse, bundle.serialise(sample("nitro").bundle)),
        "host's table": Target(snp_table.parse, WHOLE),
        "answer of nsm": Target(_answered, encode({"Attestation": {"document": b"document"}})),
        "pcrs": Target(bundle.split_pcrs, _of("tpm", "pcrs")),
        "der": Target(bundle.split_certificates, _of("snp", "certificates")),
        "result": Target(result.parse, result.serialise(trusted)),
        **_messages(),
        **_policies(),
    }


def _messages() -> dict[str, Target]:
    """What machines, enclaves, custodians and attestation services say to each other about evidence."""
    question = EvidenceQuestion(fragment=FRAGMENT, nonce=bytes(range(32)))
    answer = enclave_messages.payload("eu.example", question, bundle.serialise(sample("nitro").bundle))
    asked = appraisal_messages.serialise_request(a_request(last=tpm_maker.CLOCK))
    return {
        "question to an enclave": Target(enclave_messages.parse_request, enclave_messages.request(question)),
        "enclave's answer": Target(lambda data: enclave_messages.parse_payload(data, "eu.example", question), answer),
        "request for an appraisal": Target(appraisal_messages.parse_request, asked),
        "appraisal": Target(appraisal_messages.parse_payload, appraisal_messages.payload(appraised(a_request()))),
    }


TARGETS = _targets()


def brief(count: int) -> settings:
    """Return settings for the ordinary run, or the long ones where they were asked for."""
    found = settings().max_examples
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=found if found >= LONG else count, deadline=None, suppress_health_check=quiet)


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_reads_its_seed(name: str) -> None:
    """Or all that follows would only show that rubbish is refused."""
    TARGETS[name].read(TARGETS[name].seed)


def refused(target: Target, data: bytes) -> TamperingError | None:
    """Read; whatever else than a refusal comes out fails the test."""
    try:
        target.read(data)
    except TamperingError as refusal:
        return refusal
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_reads_or_refuses(name: str) -> None:
    target = TARGETS[name]

    @brief(BRIEF)
    @given(st.one_of(edited(target.seed), edited(target.seed), st.binary(max_size=200)))
    def look(data: bytes) -> None:
        refusal = refused(target, data)
        assert refusal is None or (refusal.what and refusal.message.isprintable())

    look()


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_spoiled_evidence_proves_nothing_new(technology: str) -> None:
    """One part of trusted evidence is spoiled: it is refused, or what is claimed is what was claimed before."""
    good = sample(technology)
    known, parts = good.known(), sorted(good.bundle.parts)
    before = trial.judge(good.bundle, known)
    assert before.status is Status.TRUSTED

    @brief(BRIEF // 2)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(parts))
        spoiled = good.bundle.with_part(name, data.draw(edited(good.bundle.parts[name])))
        carried.nonce(spoiled)
        with suppress(TamperingError):
            wanted.wanted(spoiled)
        try:
            found = trial.judge(spoiled, known)
        except TamperingError:
            return
        assert result.parse(result.serialise(found)) == found
        assert found.status is not Status.TRUSTED or found.claims == before.claims

    look()


@brief(4 * BRIEF)
@given(st.binary(max_size=2000))
def test_any_bytes_are_told_or_not(data: bytes) -> None:
    assert recognise.technology(data) in {"", recognise.BUNDLE, *TECHNOLOGIES}
    wrapped = recognise.wrap(data)
    assert wrapped is None or carried.nonce(wrapped) is not None


_ANY: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@pytest.mark.parametrize("technology", ["snp", "tdx", "sgx", "nitro", "tpm", "azure-snp"])
def test_any_value_in_any_field_of_a_policy_is_taken_or_refused(technology: str) -> None:
    (_, table), *_ = sample(technology).policies

    @brief(BRIEF)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        path: list[str] = []
        inner: Any = table
        while isinstance(inner, dict) and inner:
            path.append(data.draw(st.sampled_from(sorted(inner))))
            inner = inner[path[-1]]
            if data.draw(st.booleans()):
                break
        changed = json.loads(json.dumps(table))
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = data.draw(_ANY)
        try:
            found = policy_review.review(_json(changed))
        except TamperingError:
            return
        assert strict_json.parse(found.payload, "it", 1 << 16, TamperingError) == changed

    look()
