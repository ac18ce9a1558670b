# SPDX-License-Identifier: Apache-2.0
"""Genuine quotes of TDX and SGX and what a strict verifier answers: MANIFEST.json's verdicts by the checks' names."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    event_log,
    intel_appraisal,
    intel_bundle,
    intel_certificates,
    intel_checks,
    intel_collateral,
    intel_quote,
    intel_signature,
    intel_standing,
    intel_verify,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.intel_bundle import Collateral
from keyquorum.evidence.intel_certificates import INTEL_ROOTS, SIGNER
from keyquorum.evidence.intel_quote import EnclaveReport, TdReport
from keyquorum.evidence.intel_reference import MEASUREMENTS
from keyquorum.evidence.intel_standing import Bounds
from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust, VerifiedQuote
from keyquorum.evidence.result import AttestationResult, Outcome, Status, parse, serialise
from keyquorum.evidence.tpm_wire import BANKS
from unit.evidence.intel_maker import policy, signed_policy

Vectors = Callable[[str], Path]
STRIDE = 16  # of flips where every byte would take minutes: in certificates, lists, and quotes of a kind already done


class Case(NamedTuple):
    """A genuine quote, with the first words of the manifest's verdict in the names of our checks."""

    path: str
    collateral: str
    at: str
    verdict: str
    failed: tuple[str, ...] = ()


LEVEL, STATUS, ADVISORIES = "intel.tcb.level", "intel.tcb.status", "intel.tcb.advisories"
SEPT = "tdx.attributes.sept-ve-disable"
PHALA, GOOGLE = "tdx/phala-dcap-qvl", "tdx/google-go-tdx-guest"
CASES = {
    "tdx_quote": Case(f"{PHALA}/tdx_quote", f"{PHALA}/tdx_quote_collateral.json", "2025-06-19T12:00", "UpToDate"),
    "cos-113": Case(
        f"{GOOGLE}/cos-113-tdx-quote.dat", "composed/tdx_00806f05_2025-07_collateral.json", "2025-07-10", "UpToDate"
    ),
    "quote_v5": Case(
        f"{GOOGLE}/quote_v5_sample.dat", "composed/tdx_90c06f_2026-03_collateral.json", "2026-03-20", "UpToDate"
    ),
    "outdated": Case(
        f"{PHALA}/tdx_quote_outdated", f"{PHALA}/tdx_quote_outdated_collateral.json", "2026-02-18T12:00",
        "refuse: no matching TCB level", (LEVEL,),
    ),
    "sgx_quote": Case(
        "sgx/phala-dcap-qvl/sgx_quote", "sgx/phala-dcap-qvl/sgx_quote_collateral.json", "2025-06-19T12:00",
        "ConfigurationAndSWHardeningNeeded (SA-00289, SA-00615)", (STATUS, ADVISORIES),
    ),
    "spr_e4": Case(
        f"{GOOGLE}/tdx_prod_quote_SPR_E4.dat", "composed/tdx_50806f_2026-03_collateral.json", "2026-03-20",
        "refuse: no matching TCB level / SEPT_VE_DISABLE clear / PKS",
        ("intel.quote.fill", LEVEL, SEPT, "tdx.attributes.pks"),
    ),
    "tdx_quote_4": Case(
        "tdx/trustee/tdx_quote_4.dat", "composed/tdx_50806f_2026-03_collateral.json", "2026-03-20",
        "refuse: TD debug attribute", (STATUS, ADVISORIES, "tdx.attributes.debug"),
    ),
    "azure": Case(
        "azure-vtpm/trustee-az-tdx/td-quote.bin", "composed/tdx_00806f05_2025-07_collateral.json", "2025-07-10",
        "refuse when SEPT_VE_DISABLE is demanded", (STATUS, ADVISORIES, SEPT),
    ),
    "occlum": Case(
        "sgx/trustee/occlum_quote.dat", "", "2024-03-20", "refuse: debug enclave",
        ("intel.tcb-info.signature", "sgx.attributes.debug"),
    ),
    "tdx_quote_6": Case(
        "tdx/trustee/tdx_quote_6.dat", "trustee", "2025-11-10", "crypto ok; TCB by trustee tcbInfo.json",
        ("intel.pck.revocation", "intel.signer.revocation", STATUS),
    ),
    "synthetic-v3": Case(
        "tdx/intel-qvl-sample/quote.dat", "", "2024-03-20", "synthetic", ("intel.quote.certification",)
    ),
    "synthetic-v4": Case("tdx/intel-qvl-sample/tdx__quote.dat", "", "2024-03-20", "synthetic", ("intel.pck.chain",)),
}  # fmt: skip
GENUINE = [name for name in CASES if not name.startswith("synthetic")]
WHOLE = ("tdx_quote", "quote_v5", "sgx_quote")  # one of each version: every byte before the certificates is flipped


def seconds(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp())


def collateral(vectors: Vectors, name: str) -> Collateral | None:
    """Read collateral; trustee's has no chain and no lists beside it, so it gets those of another."""
    if not name:
        return None
    if name != "trustee":
        return intel_bundle.parse_bundle(vectors(f"attest/{name}").read_bytes())
    other = collateral(vectors, CASES["quote_v5"].collateral)
    assert other is not None
    folder = vectors("attest/sgx/trustee")
    info = intel_bundle.unwrap((folder / "tcbInfo.json").read_bytes(), "tcbInfo", "x")
    identity = intel_bundle.unwrap((folder / "enclaveIdentity.json").read_bytes(), "enclaveIdentity", "x")
    return replace(
        other,
        tcb_info=info[0], tcb_info_signature=info[1], qe_identity=identity[0], qe_identity_signature=identity[1],
    )  # fmt: skip


def body_rules(body: EnclaveReport | TdReport) -> dict[str, Any]:
    """Return a policy's rules that take exactly the measurements of a quote."""
    if isinstance(body, EnclaveReport):
        found: dict[str, Any] = {"identities": [{"mrenclave": body.mrenclave.hex()}]}
        return found | {name: [getattr(body, name).hex()] for name in ("configid", "isvextprodid", "isvfamilyid")}
    return {"xfam": None} | {name: [getattr(body, name).hex()] for name in MEASUREMENTS}


class Scene:
    """A genuine quote with its collateral, and a policy that takes its measurements and nothing loose."""

    def __init__(self, vectors: Vectors, name: str) -> None:
        self.case = CASES[name]
        self.data = vectors(f"attest/{self.case.path}").read_bytes()
        self.now = seconds(self.case.at)
        self.collateral = collateral(vectors, self.case.collateral)
        self.quote = None if name == "synthetic-v3" else intel_quote.parse(self.data)
        self.report_data = self.quote.body.report_data if self.quote else bytes(64)
        self.log = b""
        self.rules = body_rules(self.quote.body) if self.quote else {}
        self.tcb: dict[str, Any] = {"statuses": {}, "advisories": {}, "evaluation": 0}

    def policy(self, **attributes: str) -> dict[str, Any]:
        tee = self.quote.tee if self.quote else "sgx"
        table = policy(
            tee, self.rules, issued=self.now - 1, expires=self.now + 1,
            platforms={"allowed": None, "denied": []}, tcb=self.tcb,
        )  # fmt: skip
        table["td" if tee == "tdx" else "enclave"]["attributes"] |= attributes
        return table

    def appraise(self, trust: IntelTrust | None = None, /, **attributes: str) -> tuple[AttestationResult, int]:
        evidence = IntelEvidence(quote=self.data, collateral=self.collateral, log=self.log)
        reference = signed_policy(self.policy(**attributes))
        return intel_appraisal.appraise(evidence, self.report_data, reference, trust or IntelTrust(), self.now)

    def verify(self, data: bytes, checks: Checks) -> VerifiedQuote | None:
        evidence = IntelEvidence(quote=data, collateral=None)
        return intel_verify.verify(evidence, self.report_data, IntelTrust(), self.now, checks)


def names(result: AttestationResult) -> tuple[str, ...]:
    return tuple(check.name for check in result.failed)


def test_every_intel_entry_of_the_manifest_has_its_verdict_here(vectors: Vectors) -> None:
    manifest = {row["path"]: row for row in json.loads(vectors("attest/MANIFEST.json").read_text())}
    rows = {path: row for path, row in manifest.items() if row["kind"].startswith(("tdx", "sgx"))}
    assert rows.keys() == {case.path for case in CASES.values()}
    for case in CASES.values():
        row = rows[case.path]
        assert row["strict_verdict"].startswith(case.verdict)
        assert row["verify_at"] is None or seconds(row["verify_at"].removesuffix("Z")) == seconds(case.at)
        assert row.get("collateral", case.collateral) == case.collateral
        assert hashlib.sha256(vectors(f"attest/{case.path}").read_bytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("name", CASES)
def test_verdicts(vectors: Vectors, name: str) -> None:
    result, evaluation = Scene(vectors, name).appraise()
    assert names(result) == CASES[name].failed, result.reason
    assert (result.status is Status.TRUSTED) == (CASES[name].failed == ()) == bool(evaluation)
    assert parse(serialise(result)) == result
    if name in GENUINE:
        assert result.chain[-1].subject.startswith("C=US") or "Intel SGX Root CA" in result.chain[-1].subject


def test_a_status_is_taken_only_by_name_and_for_a_time(vectors: Vectors) -> None:
    scene = Scene(vectors, "sgx_quote")
    status, known = "ConfigurationAndSWHardeningNeeded", ("INTEL-SA-00289", "INTEL-SA-00615")
    until = dict.fromkeys(known, scene.now + 1)
    scene.tcb = {"statuses": {status: scene.now + 1}, "advisories": until, "evaluation": 17}
    result, evaluation = scene.appraise()
    assert (result.status, evaluation) == (Status.TRUSTED, 17), result.reason
    assert {STATUS, ADVISORIES} <= {check.name for check in result.waived}
    assert result.claims["intel.tcb-status"] == status
    scene.tcb = {"statuses": {status: scene.now}, "advisories": until, "evaluation": 17}
    assert names(scene.appraise()[0]) == (STATUS,)
    scene.tcb = {"statuses": {status: scene.now + 1}, "advisories": {known[0]: scene.now + 1}, "evaluation": 17}
    assert names(scene.appraise()[0]) == (ADVISORIES,)


def test_a_paravisor_needs_a_policy_of_its_own(vectors: Vectors) -> None:
    scene = Scene(vectors, "azure")
    result, _ = scene.appraise(None, **{"sept-ve-disable": "any"})
    assert names(result) == (STATUS, ADVISORIES)
    assert SEPT in {check.name for check in result.waived}


def test_the_log_of_a_trust_domain_explains_its_rtmrs(vectors: Vectors) -> None:
    """RTMR0 to 2 by the digests of their events; RTMR3, into which nothing was measured, only by its value."""
    scene = Scene(vectors, "cos-113")
    scene.log = vectors(f"attest/{GOOGLE}/ccel_data.dat").read_bytes()
    log = event_log.parse(scene.log, "log")
    digests = [sorted({event.digests[BANKS["sha384"]].hex() for event in log.of(number)}) for number in (1, 2, 3)]
    scene.rules |= {f"rtmr{number}": {"events": rows} for number, rows in enumerate(digests)}
    result, _ = scene.appraise()
    assert result.status is Status.TRUSTED, result.reason
    assert "tdx.log.replay" not in {check.name for check in result.waived}
    scene.rules["rtmr2"] = {"events": digests[2][1:]}
    assert names(scene.appraise()[0]) == ("tdx.rtmr2",)
    scene.rules["rtmr3"] = scene.rules["rtmr2"]
    assert names(scene.appraise()[0]) == ("tdx.rtmr2", "tdx.rtmr3")
    scene.log = vectors("attest/tpm/google-go-eventlog/cos-113-intel-tdx-dupe-separator.bin").read_bytes()
    assert "tdx.log.replay" in names(scene.appraise()[0])


def test_no_debug_attribute_is_taken_but_by_name(vectors: Vectors) -> None:
    for name, attribute in (("tdx_quote_4", "tdx.attributes.debug"), ("occlum", "sgx.attributes.debug")):
        result, _ = Scene(vectors, name).appraise(debug="any")
        assert attribute in {check.name for check in result.waived}
        assert attribute not in names(result)


@pytest.mark.parametrize("name", ["tdx_quote", "cos-113", "quote_v5", "sgx_quote"])
def test_collateral_counts_for_its_days_and_its_platform(vectors: Vectors, name: str) -> None:
    scene = Scene(vectors, name)
    before = set(names(scene.appraise()[0]))
    scene.now += 40 * 86400
    late = set(names(scene.appraise()[0])) - before
    assert late == {"intel.tcb-info.current", "intel.qe-identity.current", "intel.pck.revocation"}
    scene = Scene(vectors, name)
    rolled = set(names(scene.appraise(IntelTrust(evaluation=19))[0])) - before
    assert rolled == {"intel.tcb-info.floor", "intel.qe-identity.floor"}
    scene.collateral = collateral(vectors, CASES["outdated" if name != "quote_v5" else "tdx_quote"].collateral)
    assert "intel.tcb-info.platform" in names(scene.appraise()[0])


def test_no_other_root_is_believed(vectors: Vectors) -> None:
    for name in ("tdx_quote", "sgx_quote"):
        result, _ = Scene(vectors, name).appraise(IntelTrust(roots=frozenset({bytes(32)})))
        assert names(result) == ("intel.pck.chain",)


COLLECTED = {
    "attest/tdx/teepot-collateral": {
        "tdx_tcb_info.json": "TDX", "tdx_tcb_info_eval17.json": "TDX", "sgx_tcb_info_early.json": "SGX",
        "sgx_tcb_info_alt.json": "SGX", "tdx_qe_identity.json": "TD_QE", "sgx_qe_identity.json": "QE",
        "sgx_qve_identity.json": "QVE",
    },
    "attest/tdx/google-go-tdx-guest": {
        "sample_tcbInfo_response": "TDX", "sample_tcbinfo_response_v5": "TDX", "sample_qeIdentity_response": "TD_QE",
    },
}  # fmt: skip


@pytest.mark.parametrize("folder", COLLECTED)
def test_responses_of_intels_service_are_read_as_they_were_signed(vectors: Vectors, folder: str) -> None:
    bundle = collateral(vectors, CASES["quote_v5"].collateral)
    assert bundle is not None
    for file, kind in COLLECTED[folder].items():
        response = (vectors(folder) / file).read_bytes().strip()
        chain = bundle.tcb_info_chain
        if file.endswith(".json"):
            table = json.loads(response)
            chain = table["issuer_chain"].encode()
            response = (table.get("tcb_info_json") or table["enclave_identity_json"]).encode()
        name = "tcbInfo" if kind in {"TDX", "SGX"} else "enclaveIdentity"
        data, signature = intel_bundle.unwrap(response, name, file)
        signer = intel_certificates.load_chain(chain, INTEL_ROOTS, SIGNER, "signer")[0]
        intel_signature.verify(signer.key, signature, data, file)
        read = intel_collateral.parse_tcb_info if name == "tcbInfo" else intel_collateral.parse_identity
        assert read(data, file).issue.kind == kind
        for spoiled in (response[1:], response[:-1], response.replace(b'"signature"', b'"signatur"'), b"{}", b""):
            with pytest.raises(TamperingError):
                intel_bundle.unwrap(spoiled, name, file)


def flips(data: bytes, places: range) -> Iterator[bytes]:
    """Yield the data with one bit flipped in each of some bytes in turn."""
    for at in places:
        yield data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]


def believed(found: VerifiedQuote | None) -> tuple[object, ...]:
    return (found.quote.signed, found.platform, found.quote.fill) if found else ()


@pytest.mark.parametrize("name", GENUINE)
def test_no_flipped_bit_of_a_quote_makes_another_statement(vectors: Vectors, name: str) -> None:
    """A bit of the armour of a certificate may mean nothing; then what is believed is what was believed before."""
    scene = Scene(vectors, name)
    before = scene.verify(scene.data, Checks(intel_checks.REFERENCES))
    assert before is not None
    chain = scene.data.index(b"-----BEGIN")
    places = [range(0, len(scene.data), STRIDE)]
    if name in WHOLE:
        places = [range(chain), range(chain, len(scene.data), STRIDE)]
    for spoiled in (one for part in places for one in flips(scene.data, part)):
        checks = Checks(intel_checks.REFERENCES)
        found = scene.verify(spoiled, checks)
        assert checks.failed or believed(found) == believed(before)


def test_every_bit_of_the_part_that_is_signed_counts(vectors: Vectors) -> None:
    for name in WHOLE:
        scene = Scene(vectors, name)
        assert scene.quote is not None
        key = intel_signature.public_key(scene.quote.key, "key")
        for spoiled in flips(scene.quote.signed, range(len(scene.quote.signed))):
            with pytest.raises(TamperingError):
                intel_signature.verify(key, scene.quote.signature, spoiled, "quote")


@pytest.mark.parametrize("name", ["tdx_quote", "cos-113", "quote_v5", "outdated", "sgx_quote", "spr_e4"])
def test_every_bit_of_signed_collateral_counts(vectors: Vectors, name: str) -> None:
    given = collateral(vectors, CASES[name].collateral)
    assert given is not None
    signer = intel_certificates.load_chain(given.tcb_info_chain, INTEL_ROOTS, SIGNER, "signer")[0].key
    for data, signature in (
        (given.tcb_info, given.tcb_info_signature),
        (given.qe_identity, given.qe_identity_signature),
    ):
        intel_signature.verify(signer, signature, data, "collateral")
        for spoiled in flips(data, range(len(data))):
            with pytest.raises(TamperingError):
                intel_signature.verify(signer, signature, spoiled, "collateral")
        for spoiled in flips(signature, range(len(signature))):
            with pytest.raises(TamperingError):
                intel_signature.verify(signer, spoiled, data, "collateral")


@pytest.mark.parametrize("name", ["quote_v5", "sgx_quote"])
def test_no_flipped_bit_of_collateral_changes_the_standing(vectors: Vectors, name: str) -> None:
    scene = Scene(vectors, name)
    verified = scene.verify(scene.data, Checks(intel_checks.REFERENCES))
    assert verified is not None
    assert scene.collateral is not None
    bounds = Bounds(roots=INTEL_ROOTS, now=scene.now, floor=0)
    before = intel_standing.judge(verified, scene.collateral, bounds, Checks(intel_checks.REFERENCES))
    assert before is not None
    for field in fields(Collateral):
        data = getattr(scene.collateral, field.name)
        for spoiled in flips(data, range(0, len(data), 2 * STRIDE)):
            checks = Checks(intel_checks.REFERENCES)
            given = replace(scene.collateral, **{field.name: spoiled})
            found = intel_standing.judge(verified, given, bounds, checks)
            assert checks.failed or found == before
            result = checks.conclude(verified.quote.tee, scene.now, frozenset())
            assert all(check.outcome is not Outcome.FAILED or check.spec for check in result.checks)
