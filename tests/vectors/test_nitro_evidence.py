# SPDX-License-Identifier: Apache-2.0
"""Genuine documents of Nitro Enclaves, and what a strict verifier answers (MANIFEST.json)."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    certificate,
    certificates,
    nitro_appraisal,
    nitro_document,
    nitro_policy,
    snp_certificates,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.nitro_appraisal import NitroChallenge
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.signed_policy import SignedPolicy
from unit.evidence.nitro_maker import TABLE
from unit.evidence.tpm_maker import OWNER, signed

Vectors = Callable[[str], Path]
# How the verdict begins, and the failed check; "" is trusted
VERDICTS = {
    "nitro/veracruz/aws_nitro_document.cbor": ("accept", ""),
    "nitro/veracruz/aws_nitro_document_bad_sig.cbor": ("refuse: COSE signature", "nitro.signature"),
    "nitro/base-op-enclave/sample_attestation.bin": ("accept", ""),
    "nitro/base-op-enclave/sample_attestation2.bin": ("accept", ""),
}
GENUINE = [name for name, (_, check) in VERDICTS.items() if not check]


class Enclave:
    """A document of the manifest, what its verifier asked for, and a policy that knows it."""

    def __init__(self, vectors: Vectors, name: str) -> None:
        rows = json.loads(vectors("attest/MANIFEST.json").read_text())
        (row,) = (row for row in rows if row["path"] == name)
        self.data = vectors(f"attest/{name}").read_bytes()
        assert hashlib.sha256(self.data).hexdigest() == row["sha256"]
        self.now = int(dt.datetime.fromisoformat(row["verify_at"]).timestamp())
        self.document = nitro_document.parse(nitro_document.open_envelope(self.data).payload)
        nonce = self.document.nonce or b""
        self.challenge = NitroChallenge(
            nonce=nonce,
            min_nonce=len(nonce),
            user_data=self.document.user_data,
            public_key=self.document.public_key,
        )

    def appraise(self, **changes: Any) -> AttestationResult:
        pcrs = {str(number): [self.document.pcrs[number].hex()] for number in (0, 1, 2, 3, 4, 8)}
        table = TABLE | {"pcrs": pcrs} | changes
        envelope = signed(table, OWNER, nitro_policy.REFERENCE_TYPE)
        policy = SignedPolicy(envelope=envelope, signers=(OWNER.public,))
        return nitro_appraisal.appraise(self.data, self.challenge, policy, self.now)

    def refused(self, data: bytes) -> bool:
        checks = Checks(nitro_appraisal.REFERENCES)
        found = nitro_appraisal.verify(data, self.challenge, self.now, checks)
        assert (found is None) == checks.failed
        return found is None


def test_every_nitro_entry_of_the_manifest_has_its_verdict_here(vectors: Vectors) -> None:
    rows = [row for row in json.loads(vectors("attest/MANIFEST.json").read_text()) if row["kind"] == "nitro"]
    assert {row["path"]: row["strict_verdict"] for row in rows} == {name: VERDICTS[name][0] for name in VERDICTS}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(vectors: Vectors, name: str) -> None:
    enclave = Enclave(vectors, name)
    result = enclave.appraise()
    expected = VERDICTS[name][1]
    assert [check.name for check in result.failed] == [expected] * bool(expected), result.reason
    assert (result.status == Status.TRUSTED) == (not expected)
    if not expected:
        assert {check.name for check in result.checks} == set(nitro_appraisal.REFERENCES)
        assert len(result.chain) == 5
        assert result.claims["nitro.pcr0"] == enclave.document.pcrs[0].hex()


def test_the_pinned_fingerprint_is_that_of_the_published_root(vectors: Vectors) -> None:
    text = vectors("attest/nitro/veracruz/aws_nitro_root_cert.pem").read_bytes()
    (root,) = snp_certificates.from_pem(text, "root")
    assert snp_certificates.fingerprint(root) == nitro_appraisal.AWS_ROOT
    assert all(Enclave(vectors, name).document.bundle[0] == root for name in GENUINE)


def test_a_document_lives_three_hours_and_is_fresh_for_a_minute(vectors: Vectors) -> None:
    enclave = Enclave(vectors, GENUINE[0])
    enclave.now += 60
    assert [check.name for check in enclave.appraise().failed] == ["nitro.age"]
    enclave.now += 3 * 3600
    assert [check.name for check in enclave.appraise().failed] == ["nitro.chain.validity"]
    enclave.now -= 4 * 3600
    assert [check.name for check in enclave.appraise().failed] == ["nitro.chain.validity"]


def test_a_document_without_a_nonce_is_no_answer(vectors: Vectors) -> None:
    enclave = Enclave(vectors, GENUINE[1])
    enclave.challenge = NitroChallenge(nonce=bytes(32))
    assert [check.name for check in enclave.appraise().failed] == ["nitro.nonce"]
    enclave.challenge = NitroChallenge(nonce=b"")
    assert [check.name for check in enclave.appraise().failed] == ["nitro.nonce-size"]


def test_the_document_of_another_enclave(vectors: Vectors) -> None:
    one, other = (Enclave(vectors, name) for name in GENUINE[1:])
    other.document, other.challenge = one.document, NitroChallenge(nonce=b"", min_nonce=0)
    assert [check.name for check in other.appraise().failed] == ["nitro.pcrs"]


def test_the_signature_of_another_document(vectors: Vectors) -> None:
    one, other = (Enclave(vectors, name) for name in GENUINE[1:])
    mixed = one.data[:-96] + other.data[-96:]
    one.data = mixed
    assert [check.name for check in one.appraise().failed] == ["nitro.signature"]


def test_what_another_project_measured_of_a_document_is_read(vectors: Vectors) -> None:
    """Base's sample of a running enclave lacks the envelope's signature; its payload is whole."""
    text = vectors("attest/nitro/base-nitro-validator/IndefiniteLengthCbor.t.sol").read_text()
    whole = bytes.fromhex("".join(re.findall(r'hex"([0-9a-f]{740,})"', text)))
    start = bytes.fromhex("846a5369676e61747572653144a101382240")
    assert whole.startswith(start)
    size = int.from_bytes(whole[len(start) + 1 : len(start) + 3], "big")
    payload = whole[len(start) + 3 :]
    assert len(payload) == size
    document = nitro_document.parse(payload)
    assert (document.module, len(document.bundle)) == ("i-0de38b2b6853cc9e8-enc0193685e7fee7d85", 4)
    assert len(document.public_key or b"") == 65
    with pytest.raises(TamperingError):
        nitro_document.parse(b"\xbf" + payload[1:] + b"\xff")


@pytest.mark.parametrize("name", GENUINE)
def test_no_flipped_bit_of_a_document_is_believed(vectors: Vectors, name: str) -> None:
    """Each byte of the first but for those of certificates, of which it is one in eight, and of the others one in 25.

    By the readers and the signature of the genuine certificate; one in a hundred also by the whole verification.
    """
    enclave = Enclave(vectors, name)
    assert not enclave.refused(enclave.data)
    leaf = certificate.load(enclave.document.certificate, "leaf")
    in_certificates: set[int] = set()
    for one in (enclave.document.certificate, *enclave.document.bundle):
        start = enclave.data.index(one)
        in_certificates |= set(range(start, start + len(one)))
    step = 1 if name == GENUINE[0] else 25
    for at in range(0, len(enclave.data), step):
        if step == 1 and at in in_certificates and at % 8:
            continue
        spoiled = enclave.data[:at] + bytes((enclave.data[at] ^ 1 << at // 8 % 8,)) + enclave.data[at + 1 :]
        if at % 100 == 0:
            assert enclave.refused(spoiled)
        checks = Checks(nitro_appraisal.REFERENCES)
        try:
            nitro_appraisal.check_signature(leaf, nitro_document.open_envelope(spoiled), checks)
        except TamperingError:
            continue
        assert checks.failed


def test_no_flipped_bit_of_the_certificate_is_believed(vectors: Vectors) -> None:
    """Each byte of the one that brings the key, by its own chain."""
    document = Enclave(vectors, GENUINE[0]).document
    issuer = certificate.load(document.bundle[-1], "issuer")
    for at in range(len(document.certificate)):
        data = document.certificate
        spoiled = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises(TamperingError):
            certificates.chain(certificate.load(spoiled, "leaf"), (), (issuer,), "the certificates")
