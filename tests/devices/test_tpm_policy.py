# SPDX-License-Identifier: Apache-2.0
"""A second opinion by TSS: policy digests in trial sessions, and our sealed objects unsealed by somebody else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tpm2_pytss as tss  # type: ignore[import-untyped]  # it has no type hints
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from devices.tpm_emulator import Emulator
from devices.tpm_support import Enrolment, client, extend, second_opinion, signing_key, tidy
from keyquorum.holders.tpm_pin import pin_value
from keyquorum.model.holder_options import TpmOptions
from keyquorum.secret import Secret
from keyquorum.tpm2 import commands, policy, public
from keyquorum.tpm2.wire import SRK_HANDLE, sized


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        for pcr in (0, 4, 7, 11):
            extend(emulator.device, pcr, b"%d" % pcr)
        yield emulator


def session(context: Any, kind: str) -> Any:
    return context.start_auth_session(
        tpm_key=tss.ESYS_TR.NONE,
        bind=tss.ESYS_TR.NONE,
        session_type=getattr(tss.TPM2_SE, kind),
        symmetric=tss.TPMT_SYM_DEF.parse("aes128cfb"),
        auth_hash=tss.TPM2_ALG.SHA256,
    )


def selection(bank: str, pcrs: tuple[int, ...]) -> Any:
    return tss.TPML_PCR_SELECTION.parse(f"{bank}:{','.join(map(str, pcrs))}")


def authorize(context: Any, policy_session: Any, approved: bytes) -> bytes:
    """Have TSS accept our key's signature of a policy; return the key's Name."""
    key = signing_key()
    area = public.rsa_signer(key.public_key().public_numbers().n.to_bytes(256, "big"), 65537)
    loaded = context.load_external(tss.TPM2B_PUBLIC.unmarshal(sized(area))[0], hierarchy=tss.ESYS_TR.OWNER)
    signature = tss.TPMT_SIGNATURE(sigAlg=tss.TPM2_ALG.RSASSA)
    signature.signature.rsassa.hash = tss.TPM2_ALG.SHA256
    signature.signature.rsassa.sig = key.sign(approved, padding.PKCS1v15(), hashes.SHA256())
    ticket = context.verify_signature(loaded, hashlib.sha256(approved).digest(), signature)
    context.policy_authorize(
        policy_session,
        approved_policy=approved,
        policy_ref=b"",
        key_sign=context.tr_get_name(loaded),
        check_ticket=ticket,
    )
    context.flush_context(loaded)
    return public.name(area)


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("pcrs", [(), (7,), (0, 4, 7, 11), tuple(range(16))], ids=len)
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_a_tpm_computes_the_same_digest(
    tpm: Emulator, bank: str, pcrs: tuple[int, ...], *, pin: bool, signed: bool
) -> None:
    with client(tpm.device) as own:
        values = commands.pcr_read(own, bank, pcrs)
        signed_values = commands.pcr_read(own, bank, (11,))
    with second_opinion(tpm.device) as context:
        trial, signer = session(context, "TRIAL"), b""
        if signed:
            real = session(context, "POLICY")  # a trial session accepts any ticket
            for each in (real, trial):
                context.policy_pcr(each, b"", selection(bank, (11,)))
            approved = bytes(context.policy_get_digest(real))
            assert approved == policy.after_pcr(policy.START, bank, signed_values)
            signer = authorize(context, real, approved)
            assert authorize(context, trial, approved) == signer
            assert bytes(context.policy_get_digest(real)) == policy.after_authorize(signer)
        if pcrs:
            context.policy_pcr(trial, b"", selection(bank, pcrs))
        if pin:
            context.policy_auth_value(trial)
        assert bytes(context.policy_get_digest(trial)) == policy.sealing_policy(signer, bank, values, pin=pin)
    tidy(tpm.device)


@pytest.mark.parametrize("pin", [b"", b"1234"])
def test_what_we_sealed_somebody_else_unseals(tpm: Emulator, tmp_path: Path, pin: bytes) -> None:
    enrolment = Enrolment(tpm.device, str(tmp_path), TpmOptions(pcrs=(7, 11), pin=bool(pin)), pin)
    public_area, private = (base64.b64decode(enrolment.where[name]) for name in ("public", "private"))
    with second_opinion(tpm.device) as context:
        parent = context.tr_from_tpmpublic(SRK_HANDLE)
        sealed = context.load(parent, tss.TPM2B_PRIVATE(private), tss.TPM2B_PUBLIC.unmarshal(sized(public_area))[0])
        if pin:
            with Secret.from_view(pin) as typed, pin_value(typed, base64.b64decode(enrolment.where["pin"])) as value:
                context.tr_set_auth(sealed, bytes(value.view))
        policy_session = session(context, "POLICY")
        context.policy_pcr(policy_session, b"", selection("sha256", (7, 11)))
        if pin:
            context.policy_auth_value(policy_session)
        assert bytes(context.unseal(sealed, session1=policy_session)) == enrolment.raw
    tidy(tpm.device)


def test_the_sealed_object_opens_by_policy_alone(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = Enrolment(tpm.device, str(tmp_path), TpmOptions(pcrs=(7,)))
    public_area, private = (base64.b64decode(enrolment.where[name]) for name in ("public", "private"))
    with second_opinion(tpm.device) as context:
        parent = context.tr_from_tpmpublic(SRK_HANDLE)
        sealed = context.load(parent, tss.TPM2B_PRIVATE(private), tss.TPM2B_PUBLIC.unmarshal(sized(public_area))[0])
        with pytest.raises(tss.TSS2_Exception):
            context.unseal(sealed)  # its authorisation value is empty, and is not asked
        empty = session(context, "POLICY")
        with pytest.raises(tss.TSS2_Exception):
            context.unseal(sealed, session1=empty)
    tidy(tpm.device)


def test_our_storage_key_is_the_one_that_systemd_makes(tpm: Emulator, tmp_path: Path) -> None:
    Enrolment(tpm.device, str(tmp_path), TpmOptions())
    with second_opinion(tpm.device) as context:
        template = tss.TPM2B_PUBLIC.parse(
            "ecc256:aes128cfb", objectAttributes=tss.TPMA_OBJECT(0x30472), nameAlg="sha256"
        )
        derived, *_ = context.create_primary(None, template, tss.ESYS_TR.OWNER)
        kept = context.tr_from_tpmpublic(SRK_HANDLE)
        assert bytes(context.tr_get_name(kept)) == bytes(context.tr_get_name(derived))
    tidy(tpm.device)
