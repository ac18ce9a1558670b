# SPDX-License-Identifier: Apache-2.0
"""Appraising TDX and SGX evidence under roots of our own: each thing that can be wrong is named (§6 of the page)."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.evidence import intel_checks
from keyquorum.evidence.binding import Binding, report_data
from keyquorum.evidence.intel_bundle import Collateral
from keyquorum.evidence.result import Status, parse, serialise
from keyquorum.model import strict_json
from unit.evidence.ca_maker import END, START, Authority, usage
from unit.evidence.intel_maker import (
    ATTESTATION,
    FMSPC,
    PCK,
    PLATFORM_CA,
    PPID,
    REPORT_DATA,
    STRANGER,
    TCB_SIGNER,
    Scene,
    identity,
    leaf,
    level,
    lists,
    little,
    module,
    pair,
    pck_chain,
    pem,
    platform_ca,
    point,
    root,
    sgx_extensions,
    sign,
    signer,
    tcb_info,
    tcb_level,
    tlv,
)
from unit.evidence.intel_maker import ROOT as INTEL

MANY = [("tdx", 4), ("tdx", 5), ("sgx", 3), ("sgx", 4), ("sgx", 5)]


@pytest.mark.parametrize(("tee", "version"), MANY)
def test_what_is_as_it_should_be_is_trusted(tee: str, version: int) -> None:
    result, evaluation = Scene(tee=tee, version=version).appraise()
    assert (result.status, result.technology, result.reason, evaluation) == (Status.TRUSTED, tee, "", 18)
    required = intel_checks.TD if tee == "tdx" else intel_checks.ENCLAVE
    assert {check.name for check in result.checks} == required
    unseen = {"tdx.mrservicetd"} if version == 4 else set()
    assert {check.name for check in result.waived} == (
        {"tdx.mrseam", "tdx.log.format", "tdx.log.replay"} | unseen if tee == "tdx" else set()
    )
    assert [link.subject for link in result.chain][1:] == [f"CN={PLATFORM_CA.subject}", f"CN={INTEL.subject}"]
    assert result.claims["intel.tcb-status"] == "UpToDate"
    assert result.claims["intel.ppid"] == PPID.hex()
    assert parse(serialise(result)) == result


QUOTES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "version 2": ({"header": {"version": little(2, 2)}}, ["intel.quote.version"]),
    "version 6": ({"header": {"version": little(6, 2)}}, ["intel.quote.version"]),
    "p384": ({"header": {"key": little(3, 2)}}, ["intel.quote.key-type"]),
    "a stranger's quoting enclave": ({"header": {"vendor": bytes(16)}}, ["intel.quote.vendor"]),
    "unknown tee": ({"header": {"tee": little(0x80, 4)}}, ["intel.quote.tee"]),
    "tdx in version 3": ({"version": 3}, ["intel.quote.tee"]),
    "sgx body for tdx": ({"version": 5, "descriptor": little(1, 2) + little(384, 4)}, ["intel.quote.body"]),
    "wrong size of a body": ({"version": 5, "descriptor": little(3, 2) + little(584, 4)}, ["intel.quote.body"]),
    "unknown body": ({"version": 5, "descriptor": little(4, 2) + little(648, 4)}, ["intel.quote.body"]),
    "reserved field": ({"tee": "sgx", "body": {"reserved3": b"\x01" + bytes(31)}}, ["intel.quote.body"]),
    "no nesting": ({"parts": {"outer": little(5, 2)}}, ["intel.quote.certification"]),
    "ppid instead of certificates": ({"parts": {"type": little(1, 2)}}, ["intel.quote.certification"]),
    "one certificate": ({"parts": {"type": little(4, 2)}}, ["intel.quote.certification"]),
    "cut": ({"spoil": lambda quote: quote[:-1]}, ["intel.quote.structure"]),
    "empty": ({"spoil": lambda quote: quote[:0]}, ["intel.quote.structure"]),
    "large": ({"spoil": lambda quote: quote + bytes(16384)}, ["intel.quote.structure"]),
    "tail": ({"parts": {"tail": b"\x00"}}, ["intel.quote.structure"]),
    "tail after the nesting": ({"parts": {"end": b"\x00"}}, ["intel.quote.structure"]),
    "fill": ({"spoil": lambda quote: quote + bytes(70) + b"x"}, ["intel.quote.fill"]),
    "zero fill": ({"spoil": lambda quote: quote + bytes(70)}, []),
    "another platform's report": ({"parts": {"qe_signature": sign(STRANGER, b"")}}, ["intel.qe.signature"]),
    "another key": ({"parts": {"key": point(STRANGER)}}, ["intel.qe.binding"]),
    "other auth data": ({"parts": {"auth": little(1, 2) + b"x"}}, ["intel.qe.binding"]),
    "report data goes on": (
        {"qe": {"report_data": hashlib.sha256(point(ATTESTATION) + bytes(range(32))).digest() + b"\x01" + bytes(31)}},
        ["intel.qe.binding"],
    ),
    "debug quoting enclave": (
        {"qe": {"attributes": little(0x17, 8) + little(0xE7, 8)}}, ["intel.qe.debug"],
    ),
    "another signature": ({"parts": {"signature": sign(STRANGER, b"")}}, ["intel.quote.signature"]),
    "no point": ({"parts": {"key": bytes(64)}, "qe": {"report_data": hashlib.sha256(
        bytes(64) + bytes(range(32))).digest() + bytes(32)}}, ["intel.quote.signature"]),
    "another nonce": ({"report_data": bytes(64)}, ["intel.quote.report-data"]),
    "short nonce": ({"report_data": REPORT_DATA[:32]}, ["intel.quote.report-data"]),
}  # fmt: skip


@pytest.mark.parametrize("case", QUOTES)
def test_a_wrong_quote_is_named(case: str) -> None:
    changes, failed = QUOTES[case]
    assert Scene(**changes).failed() == failed


def test_a_quote_answers_one_question() -> None:
    asked = Binding(
        nonce=bytes(32), verifier="custodian", volume="8a4ab1f0-4d3a-4b6e-9d0c-3f2b1a0c9d8e", set_id=bytes(16),
        index=1, epoch=1, key=b"key",
    )  # fmt: skip
    body = {"report_data": report_data(asked)}
    assert Scene(body=body, report_data=report_data(asked)).failed() == []
    for other in (asked.with_(nonce=b"\x01" * 32), asked.with_(epoch=2), asked.with_(key=b"another")):
        assert Scene(body=body, report_data=report_data(other)).failed() == ["intel.quote.report-data"]


JUNK = st.binary(max_size=200)
PART = st.sampled_from([field.name for field in fields(Collateral)])


@settings(deadline=None, max_examples=80)
@given(junk=JUNK, at=st.integers(0, 6000), part=PART, whole=st.booleans())
def test_junk_ends_in_a_result_and_not_in_trust(junk: bytes, at: int, part: str, whole: bool) -> None:
    """Junk in place of the quote, or in it before its certificates, whose armour has bytes that mean nothing."""
    same = []

    def spoil(quote: bytes) -> bytes:
        end = quote.index(b"-----BEGIN")
        start = at % end
        found = junk if whole else (quote[:start] + junk)[:end] + quote[min(start + len(junk), end) :]
        same.append(found == quote)
        return found

    assert (Scene(spoil=spoil).failed() == []) == same[0]
    assert Scene(collateral={part: junk}).failed() != []


def chain(*certificates: x509.Certificate) -> dict[str, Any]:
    return {"parts": {"chain": pem(*certificates)}}


OLD: dict[str, Any] = {"start": START, "end": START}
CERTIFICATES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no certificates": ({"parts": {"chain": b""}}, ["intel.pck.chain"]),
    "no root": (chain(leaf(), platform_ca()), ["intel.pck.chain"]),
    "other order": (chain(platform_ca(), leaf(), root()), ["intel.pck.chain"]),
    "another root": ({"trust": {"roots": frozenset({bytes(32)})}}, ["intel.pck.chain"]),
    "not by its issuer": (chain(leaf(issuer=INTEL), platform_ca(), root()), ["intel.pck.chain"]),
    "text before": ({"parts": {"chain": b"-----BEGIN X-----\n" + pck_chain()}}, ["intel.pck.chain"]),
    "large chain": ({"parts": {"chain": pck_chain() + b"\n" * 5000 + pck_chain()}}, ["intel.pck.chain"]),
    "another leaf": (chain(leaf("Intel SGX TCB Signing"), platform_ca(), root()), ["intel.pck.role"]),
    "another issuer": (
        chain(leaf(issuer=Authority(subject="Other CA", number=41)), platform_ca("Other CA"), root()),
        ["intel.pck.role"],
    ),
    "authority": (chain(leaf(ca=True), platform_ca(), root()), ["intel.pck.role"]),
    "signs nothing": (
        chain(leaf(bits=usage(key_agreement=True)), platform_ca(), root()), ["intel.pck.role"],
    ),
    "signs certificates": (
        chain(leaf(bits=usage(digital_signature=True, key_cert_sign=True)), platform_ca(), root()), ["intel.pck.role"],
    ),
    "no sgx extensions": (chain(leaf(sgx=b""), platform_ca(), root()), ["intel.pck.extensions"]),
    "no fmspc": (chain(leaf(sgx=sgx_extensions(fmspc=None)), platform_ca(), root()), ["intel.pck.extensions"]),
    "ppid twice": (
        chain(leaf(sgx=sgx_extensions(more=pair(b"\x01", tlv(4, PPID)))), platform_ca(), root()),
        ["intel.pck.extensions"],
    ),
    "short ppid": (chain(leaf(sgx=sgx_extensions(ppid=b"x")), platform_ca(), root()), ["intel.pck.extensions"]),
    "negative version": (
        chain(leaf(sgx=sgx_extensions().replace(b"\x02\x02\x00\x0b", b"\x02\x02\xff\x0b")), platform_ca(), root()),
        ["intel.pck.extensions"],
    ),
    "expired leaf": (chain(leaf(**OLD), platform_ca(), root()), ["intel.pck.validity"]),
    "revoked platform": ({"collateral": {"pck_crl": PLATFORM_CA.revoke(77)}}, ["intel.pck.revocation"]),
    "revoked issuer": ({"collateral": {"root_crl": INTEL.revoke(5)}}, ["intel.pck.revocation"]),
    "revoked signer": ({"collateral": {"root_crl": INTEL.revoke(9)}}, ["intel.signer.revocation"]),
    "forged list": ({"collateral": {"pck_crl": PLATFORM_CA.revoke(number=STRANGER)}}, ["intel.pck.revocation"]),
    "old list": ({"collateral": {"pck_crl": PLATFORM_CA.revoke(end=START)}}, ["intel.pck.revocation"]),
    "future list": ({"collateral": {"pck_crl": PLATFORM_CA.revoke(start=END)}}, ["intel.pck.revocation"]),
    "list of another": (
        {"collateral": {"root_crl": lists()[0]}}, ["intel.pck.revocation", "intel.signer.revocation"],
    ),
    "no list": ({"collateral": {"pck_crl": b""}}, ["intel.pck.revocation"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CERTIFICATES)
def test_wrong_certificates_are_named(case: str) -> None:
    changes, failed = CERTIFICATES[case]
    assert Scene(**changes).failed() == failed


def by(number: int, part: str, table: dict[str, Any], chain_: bytes | None = None) -> dict[str, Any]:
    """Return collateral with a part that another key signed."""
    data = strict_json.serialise(table)
    rows = {part: data, f"{part}_signature": sign(number, data)}
    return {"collateral": rows | ({f"{part}_chain": chain_} if chain_ is not None else {})}


def test_each_part_of_collateral_may_have_a_signer_of_its_own() -> None:
    other = leaf("Intel SGX TCB Signing", number=STRANGER, issuer=INTEL, sgx=b"", serial=10)
    given = by(STRANGER, "qe_identity", identity("tdx"), pem(other, root()))
    assert Scene(**given).failed() == []
    given["collateral"]["root_crl"] = INTEL.revoke(10)
    assert Scene(**given).failed() == ["intel.signer.revocation"]


TOO_OLD = {"tcbEvaluationDataNumber": 16}
COLLATERAL: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({"collateral": None}, ["intel.tcb-info.signature"]),
    "signer's chain is cut": ({"collateral": {"tcb_info_chain": pem(signer())}}, ["intel.signer.chain"]),
    "large signer's chain": (
        {"collateral": {"tcb_info_chain": pem(signer(), root()) + b"\n" * 16384}}, ["intel.signer.chain"],
    ),
    "signer of another root": (
        {"collateral": {"qe_identity_chain": pem(signer(), leaf(issuer=INTEL))}}, ["intel.signer.chain"],
    ),
    "platform as signer": (
        by(PCK, "tcb_info", tcb_info("tdx"), pem(leaf(issuer=INTEL), root())), ["intel.signer.role"],
    ),
    "platform's chain": ({"collateral": {"tcb_info_chain": pck_chain()}}, ["intel.signer.chain"]),
    "expired signer": (
        {"collateral": {"tcb_info_chain": pem(signer(**OLD), root())}}, ["intel.signer.validity"],
    ),
    "tcb info by a stranger": (by(STRANGER, "tcb_info", tcb_info("tdx")), ["intel.tcb-info.signature"]),
    "identity by a stranger": (by(STRANGER, "qe_identity", identity("tdx")), ["intel.qe-identity.signature"]),
    "signature is short": ({"collateral": {"tcb_info_signature": bytes(63)}}, ["intel.tcb-info.signature"]),
    "swapped": (
        by(TCB_SIGNER, "tcb_info", identity("tdx")), ["intel.tcb-info.format"],
    ),
    "tcb info of version 2": ({"info": {"version": 2}}, ["intel.tcb-info.format"]),
    "tcb info with a new field": ({"info": {"acceptAll": True}}, ["intel.tcb-info.format"]),
    "identity with a new field": ({"identity": {"acceptAll": True}}, ["intel.qe-identity.format"]),
    "tcb info of sgx": ({"info": {"id": "SGX", "tdxModule": None}}, ["intel.tcb-info.format"]),
    "sgx tcb info for tdx": (by(TCB_SIGNER, "tcb_info", tcb_info("sgx")), ["intel.tcb-info.kind"]),
    "identity of sgx": ({"identity": {"id": "QE"}}, ["intel.qe-identity.kind"]),
    "future tcb info": ({"info": {"issueDate": "2027-01-16T00:00:00Z"}}, ["intel.tcb-info.current"]),
    "expired tcb info": ({"info": {"nextUpdate": "2027-01-15T08:00:00Z"}}, ["intel.tcb-info.current"]),
    "expired identity": ({"identity": {"nextUpdate": "2027-01-15T08:00:00Z"}}, ["intel.qe-identity.current"]),
    "tcb info rolled back": ({"info": TOO_OLD}, ["intel.tcb-info.floor"]),
    "identity rolled back": ({"identity": TOO_OLD}, ["intel.qe-identity.floor"]),
    "seen before": (
        {"trust": {"evaluation": 19}}, ["intel.tcb-info.floor", "intel.qe-identity.floor"],
    ),
    "another fmspc": ({"info": {"fmspc": "00" * 6}}, ["intel.tcb-info.platform"]),
    "another pce": ({"info": {"pceId": "0001"}}, ["intel.tcb-info.platform"]),
}  # fmt: skip


@pytest.mark.parametrize("case", COLLATERAL)
def test_wrong_collateral_is_named(case: str) -> None:
    changes, failed = COLLATERAL[case]
    assert Scene(**changes).failed() == failed


STANDING: dict[str, tuple[dict[str, Any], list[str]]] = {
    "another qe": ({"identity": {"mrsigner": "00" * 32}}, ["intel.qe.identity"]),
    "another product": ({"identity": {"isvprodid": 1}}, ["intel.qe.identity"]),
    "qe with other attributes": ({"identity": {"attributes": "15" + "00" * 15}}, ["intel.qe.identity"]),
    "qe with miscselect": ({"qe": {"miscselect": b"\x01\x00\x00\x00"}}, ["intel.qe.identity"]),
    "qe without level": ({"qe": {"isvsvn": little(1, 2)}}, ["intel.qe.level"]),
    "revoked qe": ({"identity": {"tcbLevels": [level(1, "Revoked")]}}, ["intel.qe.level", "intel.tcb.status"]),
    "old qe": ({"qe": {"isvsvn": little(2, 2)}}, ["intel.tcb.status", "intel.tcb.advisories"]),
    "no level": ({"info": {"tcbLevels": [tcb_level(4, tdx=2)]}}, ["intel.tcb.level"]),
    "no level of the pce": (chain(leaf(sgx=sgx_extensions(pcesvn=10)), platform_ca(), root()), ["intel.tcb.level"]),
    "no level of one component": (
        chain(leaf(sgx=sgx_extensions(components=(3,) * 15 + (2,))), platform_ca(), root()), ["intel.tcb.level"],
    ),
    "no level of tdx": ({"body": {"tee_tcb_svn": bytes((5, 1)) + bytes((2,)) * 13 + b"\x01"}}, ["intel.tcb.level"]),
    "unknown module": ({"body": {"tee_tcb_svn": bytes((5, 2)) + bytes((2,)) * 14}}, ["intel.tcb.module"]),
    "module of a stranger": ({"body": {"mrsignerseam": b"\x01" + bytes(47)}}, ["intel.tcb.module"]),
    "module with attributes": ({"body": {"seam_attributes": b"\x01" + bytes(7)}}, ["intel.tcb.module"]),
    "module without level": (
        {"body": {"tee_tcb_svn": bytes((4, 1)) + bytes((2,)) * 14}}, ["intel.tcb.module-level"],
    ),
    "revoked module": (
        {"info": {"tdxModuleIdentities": [module(id="TDX_01", tcbLevels=[level(1, "Revoked")])]}},
        ["intel.tcb.module-level", "intel.tcb.status"],
    ),
    "old module": (
        {"info": {"tdxModuleIdentities": [module(id="TDX_01", tcbLevels=[level(1, "OutOfDate")])]}},
        ["intel.tcb.status"],
    ),
    "out of date": ({"info": {"tcbLevels": [tcb_level(3, "OutOfDate", tdx=2)]}}, ["intel.tcb.status"]),
    "revoked": ({"info": {"tcbLevels": [tcb_level(3, "Revoked", tdx=2)]}}, ["intel.tcb.status"]),
    "open advisory": (
        {"info": {"tcbLevels": [tcb_level(3, tdx=2, advisoryIDs=["INTEL-SA-00002"])]}}, ["intel.tcb.advisories"],
    ),
    "platform not on the list": (
        {"policy": {"platforms": {"allowed": ["00" * 16], "denied": []}}}, ["intel.platform.allowed"],
    ),
    "denied platform": (
        {"policy": {"platforms": {"allowed": None, "denied": [PPID.hex()]}}}, ["intel.platform.denied"],
    ),
    "denied product": (
        {"policy": {"platforms": {"allowed": None, "denied": [FMSPC.hex()]}}}, ["intel.platform.denied"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STANDING)
def test_a_platform_that_is_not_up_to_date_is_named(case: str) -> None:
    changes, failed = STANDING[case]
    assert Scene(**changes).failed() == failed


def attributes(*bits: int) -> dict[str, Any]:
    value = 1 << 28
    for bit in bits:
        value ^= 1 << bit
    return {"body": {"attributes": little(value, 8)}}


BODIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "td debug": (attributes(0), ["tdx.attributes.debug"]),
    "no sept-ve-disable": (attributes(28), ["tdx.attributes.sept-ve-disable"]),
    "migratable": (attributes(29), ["tdx.attributes.migratable"]),
    "pks": (attributes(30), ["tdx.attributes.pks"]),
    "kl": (attributes(31), ["tdx.attributes.kl"]),
    "perfmon": (attributes(63), ["tdx.attributes.perfmon"]),
    "lass": (attributes(27), ["tdx.attributes.lass"]),
    "tpa": (attributes(62), ["tdx.attributes.tpa"]),
    "reserved attribute": (attributes(1), ["tdx.attributes.reserved"]),
    "no sse": ({"body": {"xfam": little(0x1, 8)}}, ["tdx.xfam.fixed"]),
    "unknown xfam": ({"body": {"xfam": little(1 << 40 | 3, 8)}}, ["tdx.xfam.fixed", "tdx.xfam.allowed"]),
    "xfam beyond the policy": ({"body": {"xfam": little(0x1003, 8)}}, ["tdx.xfam.allowed"]),
    "service td": ({"version": 5, "body": {"mrservicetd": b"\x01" * 48}}, ["tdx.mrservicetd"]),
    "mrtd": ({"body": {"mrtd": bytes(48)}}, ["tdx.mrtd"]),
    "rtmr0": ({"body": {"rtmr0": bytes(48)}}, ["tdx.rtmr0"]),
    "rtmr1": ({"body": {"rtmr1": bytes(48)}}, ["tdx.rtmr1"]),
    "rtmr2": ({"body": {"rtmr2": bytes(48)}}, ["tdx.rtmr2"]),
    "rtmr3": ({"body": {"rtmr3": bytes(48)}}, ["tdx.rtmr3"]),
    "mrconfigid": ({"body": {"mrconfigid": bytes(48)}}, ["tdx.mrconfigid"]),
    "mrowner": ({"body": {"mrowner": bytes(48)}}, ["tdx.mrowner"]),
    "mrownerconfig": ({"body": {"mrownerconfig": bytes(48)}}, ["tdx.mrownerconfig"]),
    "mrseam": ({"reference": {"mrseam": ["00" * 48]}}, ["tdx.mrseam"]),
    "an enclave's policy": ({"policy_tee": "sgx"}, ["policy.tee"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
def test_another_trust_domain_is_named(case: str) -> None:
    changes, failed = BODIES[case]
    assert Scene(**changes).failed() == failed


ENCLAVE = hashlib.sha256(b"enclave").hexdigest()


def flags(value: int) -> dict[str, Any]:
    return {"body": {"attributes": little(value, 8) + little(0xE7, 8)}}


ENCLAVES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "enclave debug": (flags(0x7), ["sgx.attributes.debug"]),
    "not initialised": (flags(0x4), ["sgx.attributes.init"]),
    "32 bits": (flags(0x1), ["sgx.attributes.mode64"]),
    "reserved flag": (flags(0x5 | 1 << 3), ["sgx.attributes.reserved"]),
    "provision key": (flags(0x15), ["sgx.attributes.provision-key"]),
    "einittoken key": (flags(0x25), ["sgx.attributes.einittoken-key"]),
    "key separation": (flags(0x85), []),
    "another signer": ({"body": {"mrsigner": bytes(32)}}, ["sgx.identity"]),
    "another enclave": (
        {"reference": {"identities": [{"mrenclave": "00" * 32}]}}, ["sgx.identity"],
    ),
    "by its hash": (
        {"body": {"mrsigner": bytes(32)}, "reference": {"identities": [{"mrenclave": ENCLAVE}]}}, [],
    ),
    "old enclave": ({"body": {"isvsvn": little(2, 2)}}, ["sgx.identity"]),
    "other product": ({"body": {"isvprodid": little(8, 2)}}, ["sgx.identity"]),
    "configured": ({"body": {"configid": b"\x01" * 64}}, ["sgx.configid"]),
    "extended product": ({"body": {"isvextprodid": b"\x01" * 16}}, ["sgx.isvextprodid"]),
    "family": ({"body": {"isvfamilyid": b"\x01" * 16}}, ["sgx.isvfamilyid"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ENCLAVES)
def test_another_enclave_is_named(case: str) -> None:
    changes, failed = ENCLAVES[case]
    assert Scene(tee="sgx", version=3, **changes).failed() == failed
