# SPDX-License-Identifier: Apache-2.0
"""Quotes and credentials of a real TPM emulator, judged by the verifier's own code, which shares nothing with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devices.tpm_emulator import Emulator
from devices.tpm_support import client, extend, loaded
from keyquorum.errors import HolderError, RefusedError, UnavailableError
from keyquorum.evidence import credential, tpm_checks, tpm_keys, tpm_public, tpm_quote
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.ek_certificate import EkTrust, key_hash
from keyquorum.evidence.result import Status
from keyquorum.evidence.tpm_keys import Activation, KeyEvidence
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence
from keyquorum.native import sodium
from keyquorum.tpm2 import attestation, commands, endorsement, public

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyquorum.tpm2.attestation import Quote
    from keyquorum.tpm2.endorsement import AttestedKeys

NOW = 1_800_000_000
EXTRA = bytes(range(32))
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)  # more than one answer of PCR_Read has room for


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


def keys_of(tpm: Emulator) -> AttestedKeys:
    with client(tpm.device) as opened:
        return endorsement.read_keys(opened)


def quoted(tpm: Emulator, keys: AttestedKeys, extra: bytes = EXTRA, pcrs: tuple[int, ...] = PCRS) -> Quote:
    with client(tpm.device) as opened:
        handle = attestation.load_key(opened, keys.ak_kind, sodium.sha256(keys.ak))
        try:
            return attestation.quote(opened, handle, extra, "sha256", pcrs)
        finally:
            opened.flush(handle)


def judged(found: Quote, keys: AttestedKeys, extra: bytes = EXTRA) -> bool:
    """Say whether the verifier believes a quote."""
    area = tpm_public.parse(keys.ak, "the AK")
    key = AttestationKey(area=keys.ak, qualified_name=tpm_public.qualified_name((area.name,)))
    checks = Checks(tpm_checks.REFERENCES)
    evidence = QuoteEvidence(attest=found.attest, signature=found.signature, pcrs=dict(found.pcrs))
    verified = tpm_quote.verify(evidence, Challenge(key=key, extra_data=extra), "sha256", PCRS, checks)
    return verified is not None and not checks.failed


def test_a_quote_is_believed_by_the_verifier(tpm: Emulator) -> None:
    extend(tpm.device, 7)
    keys = keys_of(tpm)
    assert judged(quoted(tpm, keys), keys)
    assert loaded(tpm.device) == []


def test_a_quote_for_another_question_is_not(tpm: Emulator) -> None:
    keys = keys_of(tpm)
    assert not judged(quoted(tpm, keys, bytes(32)), keys)
    assert not judged(quoted(tpm, keys, pcrs=(0, 7)), keys)


def test_the_keys_survive_a_restart(tpm: Emulator) -> None:
    before = keys_of(tpm)
    tpm.restart()
    assert keys_of(tpm) == before


def test_another_tpm_has_no_such_key(tpm: Emulator, tmp_path: Path) -> None:
    keys = keys_of(tpm)
    with Emulator(str(tmp_path / "another")) as another:
        with pytest.raises(RefusedError, match="another TPM"):
            quoted(another, keys)
        assert loaded(another.device) == []


def evidence_of(keys: AttestedKeys) -> KeyEvidence:
    area = tpm_public.parse(keys.ak, "the AK")
    return KeyEvidence(ek=keys.ek, ak=keys.ak, ak_name=area.name)


def trust_in(keys: AttestedKeys) -> EkTrust:
    return EkTrust(roots=(), listed=frozenset({key_hash(tpm_public.parse(keys.ek, "the EK"))}))


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_a_credential_proves_both_keys(tpm: Emulator, kind: str) -> None:
    with client(tpm.device) as opened:
        keys = endorsement.read_keys(opened)
        if kind == "rsa":
            handle, area = commands.create_primary(opened, public.EK_TEMPLATES["rsa"], 0x4000000B)
            opened.flush(handle)
            keys = keys.with_(ek_kind="rsa", ek=area)
        secret, seed = os.urandom(32), os.urandom(32)
        _, made = tpm_keys.challenge(evidence_of(keys), trust_in(keys), NOW, secret, seed)
        assert made is not None
        answer = endorsement.activate(opened, keys, made.id_object, made.encrypted_secret)
    result, key = tpm_keys.accept(evidence_of(keys), trust_in(keys), NOW, Activation(secret=secret, answer=answer))
    assert (result.status, answer) == (Status.TRUSTED, secret)
    assert key is not None
    assert loaded(tpm.device) == []


def test_a_credential_for_another_key_is_not_opened(tpm: Emulator, tmp_path: Path) -> None:
    keys = keys_of(tpm)
    ek = tpm_public.parse(keys.ek, "the EK")
    made = credential.make(ek, bytes(34), bytes(32), bytes(32))
    with client(tpm.device) as opened, pytest.raises(HolderError):
        endorsement.activate(opened, keys, made.id_object, made.encrypted_secret)
    assert loaded(tpm.device) == []
    right = credential.make(ek, tpm_public.parse(keys.ak, "the AK").name, bytes(32), bytes(32))
    with (
        Emulator(str(tmp_path / "another")) as another,
        client(another.device) as opened,
        pytest.raises(HolderError),
    ):
        endorsement.activate(opened, keys, right.id_object, right.encrypted_secret)


def test_a_silent_tpm_is_unavailable(tpm: Emulator) -> None:
    keys = keys_of(tpm)
    tpm.stop()
    with pytest.raises(UnavailableError):
        quoted(tpm, keys)
