# SPDX-License-Identifier: Apache-2.0
"""Attestation by a real TPM emulator, driven by TSS: our verifier believes it exactly when it should.

TSS makes the keys and quotes and activates the credentials, so that nothing of ours is on both sides.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tpm2_pytss as tss  # type: ignore[import-untyped]  # it has no type hints

from devices.tpm_emulator import Emulator
from devices.tpm_support import extend, second_opinion
from keyquorum.evidence import certificate, ek_certificate, tpm_appraisal, tpm_keys, tpm_public, tpm_quote
from keyquorum.evidence.ek_certificate import EkTrust
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.evidence.tpm_keys import Activation, KeyEvidence
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence
from unit.evidence.tpm_maker import NOW, OWNER, policy_table, signed

PCRS = (0, 7, 11)
EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")  # PolicyA, EK profile
EK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt"
AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
RH, NONE = tss.ESYS_TR.RH_ENDORSEMENT, tss.ESYS_TR.NONE


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        for pcr in PCRS:
            extend(emulator.device, pcr, b"%d" % pcr)
        yield emulator


class Machine:
    """A machine with an endorsement key and an attestation key, both primary keys: the same after every start."""

    def __init__(self, device: str, context: Any, ek: str = "rsa2048", ak: str = "ecc", attributes: str = "") -> None:
        self.device, self.context = device, context
        template = tss.TPM2B_PUBLIC.parse(f"{ek}:aes128cfb", objectAttributes=EK_ATTRIBUTES, authPolicy=EK_POLICY)
        if ek == "rsa2048":  # template L-1 has zeros as unique, from which the key is derived too
            template.publicArea.unique.rsa = bytes(256)
        self.ek, self.ek_area = self._primary(template)
        scheme = {"ecc": "ecc:ecdsa-sha256", "rsa": "rsa2048:rsassa-sha256", "pss": "rsa2048:rsapss-sha256"}[ak]
        signer = tss.TPM2B_PUBLIC.parse(f"{scheme}:null", objectAttributes=attributes or AK_ATTRIBUTES)
        self.ak, self.ak_area = self._primary(signer)
        self.ak_name = bytes(context.tr_get_name(self.ak))

    def forget(self) -> None:
        """Make room: an emulator holds three keys at a time."""
        for handle in (self.ek, self.ak):
            self.context.flush_context(handle)

    def _primary(self, template: Any) -> tuple[Any, bytes]:
        handle, public, *_ = self.context.create_primary(None, template, RH)
        return handle, bytes(public.publicArea.marshal())

    def keys(self, **changes: Any) -> KeyEvidence:
        parts: dict[str, Any] = {"ek": self.ek_area, "ak": self.ak_area, "ak_name": self.ak_name}
        return KeyEvidence(**(parts | changes))

    def activate(self, id_object: bytes, encrypted: bytes) -> bytes:
        """Have the TPM open a credential, under the endorsement key's policy."""
        session = self.context.start_auth_session(
            tpm_key=NONE,
            bind=NONE,
            session_type=tss.TPM2_SE.POLICY,
            symmetric=tss.TPMT_SYM_DEF.parse("null"),
            auth_hash=tss.TPM2_ALG.SHA256,
        )
        try:
            nonce, expiration = self.context.tr_get_name(session), 0
            assert nonce is not None
            self.context.policy_secret(RH, session, b"", b"", b"", expiration)
            opened = self.context.activate_credential(
                self.ak,
                self.ek,
                tss.TPM2B_ID_OBJECT(id_object),
                tss.TPM2B_ENCRYPTED_SECRET(encrypted),
                session1=tss.ESYS_TR.PASSWORD,
                session2=session,
            )
            return bytes(opened)
        finally:
            self.context.flush_context(session)

    def quote(self, nonce: bytes, selection: str = "sha256:0,7,11", handle: Any = None) -> QuoteEvidence:
        attest, signature = self.context.quote(handle or self.ak, selection, nonce)
        return QuoteEvidence(
            attest=bytes(attest.attestationData), signature=bytes(signature.marshal()), pcrs=self.pcrs(PCRS)
        )

    def pcrs(self, numbers: tuple[int, ...]) -> dict[int, bytes]:
        wanted = "sha256:" + ",".join(map(str, numbers))
        _, _, digests = self.context.pcr_read(wanted)
        return {pcr: bytes(value) for pcr, value in zip(numbers, digests, strict=True)}

    def enrolled(self) -> AttestationKey:
        """Go through the whole enrolment, with the endorsement key on the list."""
        trust = EkTrust(listed=frozenset({ek_certificate.key_hash(tpm_public.parse(self.ek_area, "EK"))}))
        secret = os.urandom(32)
        _, credential = tpm_keys.challenge(self.keys(), trust, NOW, secret, os.urandom(32))
        assert credential is not None
        answer = self.activate(credential.id_object, credential.encrypted_secret)
        assert answer == secret
        result, key = tpm_keys.accept(self.keys(), trust, NOW, Activation(secret=secret, answer=answer))
        assert result.status == Status.TRUSTED, result.reason
        assert key is not None
        return key


@pytest.fixture
def machine(tpm: Emulator) -> Iterator[Machine]:
    with second_opinion(tpm.device) as context:
        yield Machine(tpm.device, context)


def policy(values: dict[int, bytes]) -> SignedPolicy:
    rules = {str(pcr): [value.hex()] for pcr, value in values.items()}
    table = policy_table(rules, log=None, firmware=None)
    return SignedPolicy(envelope=signed(table), signers=(OWNER.public,))


def appraise(
    evidence: QuoteEvidence, key: AttestationKey, nonce: bytes, values: dict[int, bytes], **challenge: Any
) -> tuple[AttestationResult, ClockInfo | None]:
    asked = Challenge(key=key, extra_data=nonce, **challenge)
    return tpm_appraisal.appraise(evidence, asked, policy(values), NOW)


def failed(*arguments: Any, **challenge: Any) -> list[str]:
    result, _ = appraise(*arguments, **challenge)
    assert (result.status == Status.UNTRUSTED) == bool(result.failed)
    return [check.name for check in result.failed]


NONCE = hashlib.sha256(b"asked").digest()


@pytest.mark.parametrize("ek", ["rsa2048", "ecc256"])
@pytest.mark.parametrize("ak", ["ecc", "rsa", "pss"])
def test_a_machine_is_enrolled_and_trusted(tpm: Emulator, ek: str, ak: str) -> None:
    with second_opinion(tpm.device) as context:
        machine = Machine(tpm.device, context, ek, ak)
        key, values = machine.enrolled(), machine.pcrs(PCRS)
        result, clock = appraise(machine.quote(NONCE), key, NONCE, values)
    assert result.status == Status.TRUSTED, result.reason
    assert clock is not None
    assert clock.safe
    assert result.claims["tpm.pcr7"] == values[7].hex()


def test_a_credential_is_for_one_key_in_one_tpm(tpm: Emulator, tmp_path: Path) -> None:
    made = []
    with second_opinion(tpm.device) as context:
        for changes in ({"attributes": AK_ATTRIBUTES + "|noda"}, {"ak": "rsa"}, {}):
            machine = Machine(tpm.device, context, **changes)
            listed = frozenset({ek_certificate.key_hash(tpm_public.parse(machine.ek_area, "EK"))})
            _, credential = tpm_keys.challenge(machine.keys(), EkTrust(listed=listed), NOW, bytes(32), os.urandom(32))
            assert credential is not None
            made.append((credential.id_object, credential.encrypted_secret))
            machine.forget()
        machine = Machine(tpm.device, context)
        assert machine.activate(*made[2]) == bytes(32)
        for other in made[:2]:
            with pytest.raises(tss.TSS2_Exception):
                machine.activate(*other)
        assert machine.activate(*made[2]) == bytes(32)
    with Emulator(str(tmp_path / "another")) as another, second_opinion(another.device) as context:
        stranger = Machine(another.device, context)
        with pytest.raises(tss.TSS2_Exception):
            stranger.activate(*made[2])


def test_an_unrestricted_key_is_not_enrolled(tpm: Emulator) -> None:
    with second_opinion(tpm.device) as context:
        machine = Machine(tpm.device, context, attributes=AK_ATTRIBUTES.replace("restricted|", ""))
        listed = frozenset({ek_certificate.key_hash(tpm_public.parse(machine.ek_area, "EK"))})
        result, credential = tpm_keys.challenge(machine.keys(), EkTrust(listed=listed), NOW, bytes(32), bytes(32))
    assert [check.name for check in result.failed] == ["tpm.ak.attributes"]
    assert credential is None


def test_what_the_wire_may_do_to_a_quote(machine: Machine) -> None:
    key, values = machine.enrolled(), machine.pcrs(PCRS)
    later = hashlib.sha256(b"asked later").digest()
    assert failed(machine.quote(NONCE), key, later, values) == ["tpm.attest.nonce"], "a replay"
    stranger = AttestationKey(area=key.area, qualified_name=tpm_public.qualified_name((machine.ak_name,), 0x40000001))
    assert failed(machine.quote(NONCE), stranger, NONCE, values) == ["tpm.attest.signer"], "another hierarchy"
    false = QuoteEvidence(attest=machine.quote(NONCE).attest, signature=machine.quote(later).signature, pcrs=values)
    assert failed(false, key, NONCE, values) == ["tpm.signature.value"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("sha256:0,16,11", "tpm.quote.pcrs"),
        ("sha256:0+sha256:16+sha256:11", "tpm.quote.selections"),
        ("sha256:0,7,11+sha1:16", "tpm.quote.selections"),
        ("sha256:0,7", "tpm.quote.pcrs"),
        ("sha1:0,7,11", "tpm.quote.bank"),
        ("sha384:0,7,11", "tpm.quote.bank"),
    ],
)
def test_pcr_16_is_not_sold_as_pcr_7(machine: Machine, selection: str, expected: str) -> None:
    """Anybody may set PCR 16 to what PCR 7 has to be, and have that quoted."""
    key, values = machine.enrolled(), machine.pcrs(PCRS)
    extend(machine.device, 16, b"7")
    assert machine.pcrs((16,))[16] == values[7]
    extend(machine.device, 7, b"Secure Boot is off")
    evidence = machine.quote(NONCE, selection)
    claimed = QuoteEvidence(attest=evidence.attest, signature=evidence.signature, pcrs=values)
    assert failed(claimed, key, NONCE, values) == [expected]


def test_an_extended_pcr_is_seen(machine: Machine) -> None:
    key, values = machine.enrolled(), machine.pcrs(PCRS)
    extend(machine.device, 11)
    evidence = machine.quote(NONCE)
    assert failed(evidence, key, NONCE, values) == ["tpm.pcr.values"]
    lying = QuoteEvidence(attest=evidence.attest, signature=evidence.signature, pcrs=values)
    assert failed(lying, key, NONCE, values) == ["tpm.quote.digest"]


def test_a_reboot_is_seen(tpm: Emulator) -> None:
    with second_opinion(tpm.device) as context:
        machine = Machine(tpm.device, context)
        key, values = machine.enrolled(), machine.pcrs(PCRS)
        _, first = appraise(machine.quote(NONCE), key, NONCE, values)
        result, second = appraise(machine.quote(NONCE), key, NONCE, values, last=first, same_boot=True)
        assert first is not None
        assert second is not None
        assert result.status == Status.TRUSTED
        assert (second.reset_count, second.clock >= first.clock) == (first.reset_count, True)
        context.shutdown(tss.TPM2_SU.CLEAR)
    tpm.restart()
    for pcr in PCRS:
        extend(tpm.device, pcr, b"%d" % pcr)
    with second_opinion(tpm.device) as context:
        machine = Machine(tpm.device, context)
        evidence = machine.quote(NONCE)
        result, third = appraise(evidence, key, NONCE, values, last=second)
        assert result.status == Status.TRUSTED, "the same machine in another boot"
        assert third is not None
        assert third.reset_count == second.reset_count + 1
        assert failed(evidence, key, NONCE, values, last=second, same_boot=True) == ["tpm.clock.same-boot"]
        older = ClockInfo(reset_count=third.reset_count + 1, restart_count=0, clock=0, safe=True)
        assert failed(evidence, key, NONCE, values, last=older) == ["tpm.clock.forward"], "a TPM set back"


def test_a_key_elsewhere_in_the_tpm_does_not_count(machine: Machine) -> None:
    """In the owner's hierarchy a TPM obscures its counters; the same template there makes another key anyway."""
    key, values = machine.enrolled(), machine.pcrs(PCRS)
    template = tss.TPM2B_PUBLIC.parse("ecc:ecdsa-sha256:null", objectAttributes=AK_ATTRIBUTES)
    handle, public, *_ = machine.context.create_primary(None, template, tss.ESYS_TR.OWNER)
    evidence = machine.quote(NONCE, handle=handle)
    assert failed(evidence, key, NONCE, values) == ["tpm.signature.value"]
    area = bytes(public.publicArea.marshal())
    name = tpm_public.parse(area, "key").name
    elsewhere = AttestationKey(area=area, qualified_name=tpm_public.qualified_name((name,)))
    assert failed(evidence, elsewhere, NONCE, values) == ["tpm.attest.signer"]


def test_an_endorsement_certificate_of_the_emulators_maker(tmp_path: Path) -> None:
    """swtpm_setup makes a maker's root, its issuer, and the certificate in NV index 0x01c00002."""
    state, store = tmp_path / "state", tmp_path / "maker"
    state.mkdir()
    store.mkdir()
    config, options = tmp_path / "setup.conf", tmp_path / "maker.conf"
    issuer = f"statedir = {store}\nsigningkey = {store}/key.pem\nissuercert = {store}/issuer.pem\ncertserial = {store}/serial\n"
    options.write_text(issuer)
    (tmp_path / "options").write_text("--tpm-manufacturer id:00001014\n--tpm-model swtpm\n--tpm-version 2\n")
    config.write_text(
        f"create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {options}\n"
        f"create_certs_tool_options = {tmp_path / 'options'}\nactive_pcr_banks = sha256\n"
    )
    subprocess.run(
        ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert", "--config", str(config)],
        check=True,
        capture_output=True,
        timeout=120,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    loaded = [
        certificate.load_bundle(path.read_bytes(), path.name)[0]
        for path in (store / "swtpm-localca-rootca-cert.pem", store / "issuer.pem")
    ]
    with Emulator(str(state)) as emulator, second_opinion(emulator.device) as context:
        index = context.tr_from_tpmpublic(0x01C00002)
        size = context.nv_read_public(index)[0].nvPublic.dataSize
        stored = b"".join(
            bytes(context.nv_read(index, min(512, size - at), at, auth_handle=tss.ESYS_TR.OWNER))
            for at in range(0, size, 512)
        )
        machine = Machine(emulator.device, context)
        now = int(loaded[0].starts.timestamp()) + 86_400
        trust = EkTrust(roots=(loaded[0],), intermediates=(loaded[1],))
        evidence = machine.keys(certificates=(stored,))
        secret = os.urandom(32)
        asked, credential = tpm_keys.challenge(evidence, trust, now, secret, os.urandom(32))
        assert credential is not None, asked.reason
        answer = machine.activate(credential.id_object, credential.encrypted_secret)
        result, key = tpm_keys.accept(evidence, trust, now, Activation(secret=secret, answer=answer))
        assert result.status == Status.TRUSTED, result.reason
        assert key is not None
        assert len(result.chain) == 3
        wrong, _ = tpm_keys.challenge(evidence, EkTrust(roots=(loaded[1],)), now - 10 * 86_400, secret, bytes(32))
    assert [check.name for check in wrong.failed] == ["tpm.ek.validity"]


def test_minimum_nonce_is_what_the_binding_gives() -> None:
    assert len(NONCE) == tpm_quote.MIN_NONCE
