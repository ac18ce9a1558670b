# SPDX-License-Identifier: Apache-2.0
"""Our own quotes of a real TPM emulator, by attester and command line; TSS makes keys and indices."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tpm2_pytss as tss  # type: ignore[import-untyped]  # it has no type hints

from devices.tpm_emulator import Emulator
from devices.tpm_support import OWNER as OWNER_HIERARCHY
from devices.tpm_support import extend, second_opinion
from keyquorum.envelope import public_key_file
from keyquorum.errors import UnavailableError
from keyquorum.evidence import bundle, carried, reference_values, trial
from keyquorum.evidence.bundle import Bundle
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.trial import Known
from keyquorum.linux.azure_metadata import AzureMetadata
from keyquorum.linux.tpm_attester import HCL_INDEX, HCL_KEY, AzureAttester, TpmAttester
from keyquorum.linux.web_request import Answer
from unit.evidence import test_hcl
from unit.evidence.tpm_maker import NONCE, NOW, OWNER, policy_table, signed

ROOT = Path(__file__).resolve().parents[2]
AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
HANDLE = 0x81010002
PCRS = (0, 7, 11)
SMALL: dict[str, Any] = {"fill": b"", "runtime": {"keys": [test_hcl.jwk()]}}  # an emulator's index has 2048 bytes


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        for pcr in PCRS:
            extend(emulator.device, pcr, b"%d" % pcr)
        yield emulator


def enrolled(device: str, handle: int = HANDLE) -> bytes:
    """Make an attestation key that stays at a handle; return its public area."""
    with second_opinion(device) as context:
        template = tss.TPM2B_PUBLIC.parse("ecc:ecdsa-sha256:null", objectAttributes=AK_ATTRIBUTES)
        key, public, *_ = context.create_primary(None, template, tss.ESYS_TR.RH_ENDORSEMENT)
        context.evict_control(OWNER_HIERARCHY, key, handle)
        context.flush_context(key)
        return bytes(public.publicArea.marshal())


def index(device: str, number: int, data: bytes) -> None:
    """Define an NV index as Azure does, readable by the owner, and write it."""
    with second_opinion(device) as context:
        described = tss.TPM2B_NV_PUBLIC(
            nvPublic=tss.TPMS_NV_PUBLIC(
                nvIndex=number,
                nameAlg=tss.TPM2_ALG.SHA256,
                attributes=tss.TPMA_NV.parse("ownerwrite|ownerread|authread|authwrite"),
                dataSize=len(data),
            )
        )
        nv = context.nv_define_space(b"", described, auth_handle=OWNER_HIERARCHY)
        for at in range(0, len(data), 512):
            context.nv_write(nv, data[at : at + 512], at, auth_handle=OWNER_HIERARCHY)


def policy(given: Bundle) -> bytes:
    pcrs = bundle.split_pcrs(given.part("pcrs"))
    rules: dict[str, Any] = {str(pcr): [value.hex()] for pcr, value in pcrs.items()}
    return signed(policy_table(rules, log=None, firmware=None), OWNER, reference_values.REFERENCE_TYPE)


def judged(given: Bundle, ak: bytes, nonce: bytes = NONCE) -> AttestationResult:
    known = Known(policies=(policy(given),), signers=(OWNER.public,), nonce=nonce, now=NOW, ak=ak)
    return trial.judge(given, known)


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_a_quote_of_our_own_is_believed(tpm: Emulator, bank: str, tmp_path: Path) -> None:
    ak, log = enrolled(tpm.device), tmp_path / "log"
    log.write_bytes(b"a log")
    given = TpmAttester(tpm.device, HANDLE, bank, PCRS, str(log)).collect(NONCE)
    assert given.part("log") == b"a log"
    assert set(bundle.split_pcrs(given.part("pcrs"))) == set(PCRS)
    assert carried.nonce(given) == NONCE
    if bank == "sha256":  # the policy's
        result = judged(given, ak)
        assert result.status is Status.TRUSTED, result.reason
        assert [check.name for check in judged(given, ak, bytes(32)).failed] == ["tpm.attest.nonce"]


def test_what_was_measured_since_is_seen(tpm: Emulator) -> None:
    ak = enrolled(tpm.device)
    attester = TpmAttester(tpm.device, HANDLE, "sha256", PCRS, "/nowhere")
    before = attester.collect(NONCE)
    extend(tpm.device, 11, b"something else")
    after = attester.collect(NONCE)
    known = Known(policies=(policy(before),), signers=(OWNER.public,), nonce=NONCE, now=NOW, ak=ak)
    assert [check.name for check in trial.judge(after, known).failed] == ["tpm.pcr.values"]
    mixed = after.with_part("pcrs", before.part("pcrs"))
    assert [check.name for check in trial.judge(mixed, known).failed] == ["tpm.quote.digest"]


def test_a_tpm_that_cannot_quote_says_so(tpm: Emulator) -> None:
    with pytest.raises(UnavailableError, match="gives no quote"):
        TpmAttester(tpm.device, HANDLE, "sha256", PCRS).collect(NONCE)
    for nonce in (b"", bytes(65)):
        with pytest.raises(UnavailableError, match="carries 1 to 64 bytes"):
            TpmAttester(tpm.device, HANDLE, "sha256", PCRS).collect(nonce)
    tpm.stop()
    with pytest.raises(UnavailableError):
        TpmAttester(tpm.device, HANDLE, "sha256", PCRS).collect(NONCE)
    with pytest.raises(UnavailableError, match="there is no TPM"):
        TpmAttester("/dev/nowhere", HANDLE, "sha256", PCRS).collect(NONCE)


def test_the_report_of_a_paravisor_comes_with_a_quote(tpm: Emulator) -> None:
    enrolled(tpm.device, HCL_KEY)
    scene = test_hcl.Scene(**SMALL)
    report = scene.whole(scene.guest().signed_report())
    with pytest.raises(UnavailableError, match="has no report of Azure's"):
        AzureAttester(tpm.device, "sha256", PCRS).collect(NONCE)
    index(tpm.device, HCL_INDEX, report)
    given = AzureAttester(tpm.device, "sha256", PCRS, metadata=cloud()).collect(NONCE)
    assert (given.technology, given.part("report"), given.missing) == ("azure-snp", report, ())
    assert carried.nonce(given) == NONCE


def cloud(certificates: bytes = b"", quote: bytes = b"") -> AzureMetadata:
    """A metadata service that has these, or nothing; asked for a quote it wants the right report."""

    def get(url: str, headers: Mapping[str, str]) -> Answer:
        assert (url, headers) == ("http://cloud/metadata/THIM/amd/certification", {"Metadata": "true"})
        return Answer(200 if certificates else 404, {}, certificates)

    def post(url: str, body: bytes) -> Answer:
        assert url == "http://cloud/acc/tdquote"
        assert json.loads(body) == {"report": base64.urlsafe_b64encode(bytes(1024)).decode().rstrip("=")}
        text = base64.urlsafe_b64encode(quote).decode()
        return Answer(200 if quote else 503, {}, json.dumps({"quote": text}).encode())

    return AzureMetadata("http://cloud", get, post)


def test_certificates_come_from_the_cloud(tpm: Emulator) -> None:
    enrolled(tpm.device, HCL_KEY)
    scene = test_hcl.Scene(**SMALL)
    index(tpm.device, HCL_INDEX, scene.whole(scene.guest().signed_report()))
    chain = scene.guest().certificates()
    pem = [ssl.DER_cert_to_PEM_cert(one) for one in chain]
    table = {"vcekCert": pem[0], "certificateChain": "".join(pem[1:]), "tcbm": "x", "new": [1]}
    given = AzureAttester(tpm.device, "sha256", PCRS, metadata=cloud(json.dumps(table).encode())).collect(NONCE)
    assert bundle.split_certificates(given.part("certificates")) == chain
    wrong = [json.dumps(table | {"vcekCert": leaf}).encode() for leaf in (7, "x", "\u00e9")]
    for useless in (b"<html>", b"{}", *wrong):
        given = AzureAttester(tpm.device, "sha256", PCRS, metadata=cloud(useless)).collect(NONCE)
        assert "certificates" not in given.parts


def test_the_quote_of_a_trust_domain_comes_from_the_cloud(tpm: Emulator) -> None:
    enrolled(tpm.device, HCL_KEY)
    scene = test_hcl.DomainScene(header={10: 4}, **SMALL)
    index(tpm.device, HCL_INDEX, scene.whole(bytes(1184)))
    given = AzureAttester(tpm.device, "sha256", PCRS, metadata=cloud(quote=b"a quote?>")).collect(NONCE)
    assert (given.technology, given.part("td-quote"), given.missing) == ("azure-tdx", b"a quote?>", ())
    assert carried.nonce(given) == NONCE


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"quote":""}', b'{"quote":"a"}', b'{"quote":7}'])
def test_an_answer_that_is_no_quote(answer: bytes) -> None:
    service = AzureMetadata("http://cloud", post=lambda _url, _body: Answer(200, {}, answer))
    with pytest.raises(UnavailableError, match="gives no quote"):
        service.td_quote(bytes(1184))


def test_the_report_of_a_trust_domain_is_not_enough(tpm: Emulator) -> None:
    enrolled(tpm.device, HCL_KEY)
    scene = test_hcl.DomainScene(header={10: 4}, **SMALL)
    index(tpm.device, HCL_INDEX, scene.whole(bytes(1184)))
    with pytest.raises(UnavailableError, match="gives no quote: it answers 503"):
        AzureAttester(tpm.device, "sha256", PCRS, metadata=cloud()).collect(NONCE)


def test_from_the_tpm_to_the_verdict_by_the_command_line(tpm: Emulator, tmp_path: Path) -> None:
    ak = tmp_path / "ak"
    ak.write_bytes(enrolled(tpm.device))
    (tmp_path / "conf").write_text(f"tpm_device = {tpm.device}\n")
    (tmp_path / "owner.pub").write_bytes(public_key_file.serialise(OWNER.public))

    def attest(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "keyquorum.cli.main", "attest", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT / "agent"), "KEYQUORUM_CONFIG": str(tmp_path / "conf")},
        )

    asked = ("--nonce", NONCE.hex())
    collect = ("collect", *asked, "--out", "machine.json", "--from", "tpm", "--pcrs", "11,0,7")
    done = attest(*collect, "--tpm-key", hex(HANDLE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("machine.json has evidence of tpm: ")
    given = bundle.parse((tmp_path / "machine.json").read_bytes())
    (tmp_path / "policy").write_bytes(policy(given))
    words = ("--policy", "policy", "--signer", "owner.pub", *asked, "--at", str(NOW), "--ak", "ak")
    done = attest("verify", "machine.json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert attest("verify", "machine.json", *words, "--nonce", "00" * 32).returncode == 4
    assert attest(*collect, "--tpm-key", "0x81010009").returncode == 5
    assert attest(*collect, "--tpm-key", "x").returncode == 2
    assert attest(*collect).returncode == 2
    assert attest("collect", *asked, "--out", "other").returncode == 5  # no device of a confidential guest here
    assert not (tmp_path / "other").exists()
