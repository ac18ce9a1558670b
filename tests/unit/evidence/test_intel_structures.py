# SPDX-License-Identifier: Apache-2.0
"""Readers of quotes, collateral and SGX extensions: whole or not at all (docs/attestation-intel.md §2, §3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    certificate,
    intel_bundle,
    intel_certificates,
    intel_collateral,
    intel_quote,
    intel_signature,
)
from keyquorum.evidence.intel_quote import EnclaveReport, TdReport
from keyquorum.model import strict_json
from unit.evidence.intel_maker import (
    FMSPC,
    ISSUED,
    PPID,
    Scene,
    identity,
    leaf,
    level,
    module,
    pck_chain,
    sgx_extensions,
    sign,
    tcb_info,
    tcb_level,
)

QUOTES = {f"{tee} {version}": Scene(tee=tee, version=version).quote() for tee, version in (
    ("tdx", 4), ("tdx", 5), ("sgx", 3), ("sgx", 4), ("sgx", 5),
)}  # fmt: skip


@pytest.mark.parametrize("name", QUOTES)
def test_a_quote_is_read_field_by_field(name: str) -> None:
    data = QUOTES[name]
    quote = intel_quote.parse(data)
    tee, version = name.split()
    assert (quote.tee, str(quote.version), quote.fill) == (tee, version, b"")
    assert isinstance(quote.body, TdReport if tee == "tdx" else EnclaveReport)
    assert data.startswith(quote.signed)
    assert quote.certificates == pck_chain()
    assert quote.qe.product == 2
    if isinstance(quote.body, EnclaveReport):
        assert (quote.body.flags, quote.body.product, quote.body.security_version) == (5, 7, 3)
    else:
        assert len(quote.body.mrservicetd) == (48 if version == "5" else 0)


@pytest.mark.parametrize("name", QUOTES)
def test_every_shorter_quote_is_refused_and_a_longer_one_has_a_fill(name: str) -> None:
    data = QUOTES[name]
    for size in range(len(data)):
        with pytest.raises(TamperingError):
            intel_quote.parse(data[:size])
    assert intel_quote.parse(data + b"\x00x").fill == b"\x00x"
    assert intel_quote.parse(data + b"\x00x").signed == intel_quote.parse(data).signed


def test_a_chain_may_end_with_one_nul() -> None:
    for tail, chain in ((b"\x00", pck_chain()), (b"\x00\x00", pck_chain() + b"\x00")):
        assert intel_quote.parse(Scene(parts={"chain": pck_chain() + tail}).quote()).certificates == chain


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(sorted(QUOTES)), at=st.integers(0, 4095), junk=st.binary(max_size=64))
def test_a_quote_with_junk_ends_in_our_error_or_in_a_value(name: str, at: int, junk: bytes) -> None:
    data = QUOTES[name]
    at %= len(data)
    try:
        found = intel_quote.parse(data[:at] + junk + data[at + len(junk) :])
    except TamperingError:
        return
    assert len(found.signed) <= intel_quote.MAX_QUOTE


def test_the_readers_cap() -> None:
    with pytest.raises(TamperingError):
        intel_quote.parse(QUOTES["tdx 4"] + bytes(intel_quote.MAX_QUOTE))
    for parse in (intel_collateral.parse_tcb_info, intel_collateral.parse_identity):
        with pytest.raises(TamperingError):
            parse(b" " * (intel_collateral.MAX_JSON + 1), "x")
    with pytest.raises(TamperingError):
        intel_bundle.parse_bundle(b" " * (intel_bundle.MAX_BUNDLE + 1))


def test_tcb_info_is_read() -> None:
    found = intel_collateral.parse_tcb_info(strict_json.serialise(tcb_info("tdx")), "x")
    assert (found.fmspc, found.pce_id, found.issue.evaluation) == (FMSPC, bytes(2), 18)
    assert [one.name for one in found.modules] == ["TDX_03", "TDX_01"]
    assert found.levels[0].tdx == (2,) * 16
    old = tcb_info("tdx")
    del old["tdxModuleIdentities"]
    assert intel_collateral.parse_tcb_info(strict_json.serialise(old), "x").modules == ()


def with_component(value: Any) -> dict[str, Any]:
    """Return a level of which one component is this."""
    found = tcb_level(1, tdx=1)
    found["tcb"]["tdxtcbcomponents"] = [value, *[{"svn": 1}] * 15]
    return found


BAD_INFO: dict[str, dict[str, Any]] = {
    "version": {"version": 4},
    "true version": {"version": True},
    "kind of tcb": {"tcbType": 1},
    "instant": {"issueDate": "2027-1-10T00:00:00Z"},
    "zone": {"issueDate": ISSUED.replace("Z", "+01:00")},
    "no day": {"nextUpdate": "2027-02-30T00:00:00Z"},
    "number as text": {"tcbEvaluationDataNumber": "18"},
    "negative number": {"tcbEvaluationDataNumber": -1},
    "fraction": {"tcbEvaluationDataNumber": 18.0},
    "short fmspc": {"fmspc": "00"},
    "fmspc with a space": {"fmspc": "00 0 00 0 00"},
    "no level": {"tcbLevels": []},
    "too many levels": {"tcbLevels": [tcb_level(1, tdx=1)] * 65},
    "unknown status": {"tcbLevels": [tcb_level(1, "Fine", tdx=1)]},
    "15 components": {"tcbLevels": [{**tcb_level(1, tdx=1), "tcb": {"sgxtcbcomponents": [{"svn": 1}] * 15}}]},
    "no components of tdx": {"tcbLevels": [tcb_level(1)]},
    "component with more": {"tcbLevels": [with_component({"svn": 1, "minimum": 0})]},
    "component without svn": {"tcbLevels": [with_component({"category": "BIOS"})]},
    "component as truth": {"tcbLevels": [with_component({"svn": True})]},
    "component of a number": {"tcbLevels": [with_component({"svn": 1, "type": 1})]},
    "component as number": {"tcbLevels": [with_component(1)]},
    "component of 256": {"tcbLevels": [tcb_level(256, tdx=1)]},
    "unknown field of a level": {"tcbLevels": [tcb_level(1, tdx=1, anyway=True)]},
    "advisory as number": {"tcbLevels": [tcb_level(1, tdx=1, advisoryIDs=[7])]},
    "a module twice": {"tdxModuleIdentities": [module(id="TDX_01", tcbLevels=[level(1)])] * 2},
    "a module without levels": {"tdxModuleIdentities": [module(id="TDX_01", tcbLevels=[])]},
    "a module's configuration": {"tdxModule": module(attributesMask="FF")},
    "unknown field": {"allow": []},
}


@pytest.mark.parametrize("case", BAD_INFO)
def test_other_tcb_info_is_refused(case: str) -> None:
    with pytest.raises(TamperingError):
        intel_collateral.parse_tcb_info(json.dumps(tcb_info("tdx", **BAD_INFO[case])).encode(), "x")


@pytest.mark.parametrize("make", [lambda: tcb_info("tdx"), lambda: tcb_info("sgx"), lambda: identity("tdx")])
def test_every_field_is_needed(make: Any) -> None:
    table = make()
    parse: Any = intel_collateral.parse_identity if "isvprodid" in table else intel_collateral.parse_tcb_info
    parse(strict_json.serialise(table), "x")
    for name in table.keys() - {"tdxModuleIdentities"}:
        with pytest.raises(TamperingError):
            parse(strict_json.serialise({key: table[key] for key in table if key != name}), "x")
    with pytest.raises(TamperingError):
        parse(strict_json.serialise(table).replace(b'"id":', b'"id":"X","id":', 1), "x")


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 4095), junk=st.binary(min_size=1, max_size=8), which=st.booleans())
def test_collateral_with_junk_ends_in_our_error_or_in_a_value(at: int, junk: bytes, which: bool) -> None:
    table = tcb_info("tdx") if which else identity("sgx")
    parse: Any = intel_collateral.parse_tcb_info if which else intel_collateral.parse_identity
    data = strict_json.serialise(table)
    at %= len(data)
    try:
        parse(data[:at] + junk + data[at + len(junk) :], "x")
    except TamperingError:
        return


def bundle(**changes: Any) -> bytes:
    texts = ("tcb_info", "tcb_info_issuer_chain", "qe_identity", "qe_identity_issuer_chain")
    octets = ("tcb_info_signature", "qe_identity_signature", "pck_crl", "root_ca_crl")
    table = dict.fromkeys(texts, "text") | dict.fromkeys(octets, "00ff")
    return json.dumps({key: value for key, value in (table | changes).items() if value is not None}).encode()


def test_a_bundle_is_read() -> None:
    found = intel_bundle.parse_bundle(bundle(pck_crl_issuer_chain="not needed"))
    assert (found.tcb_info, found.pck_crl, found.root_crl) == (b"text", b"\x00\xff", b"\x00\xff")
    for name in json.loads(bundle()):
        for wrong in (None, 7, "é"):
            with pytest.raises(TamperingError):
                intel_bundle.parse_bundle(bundle(**{name: wrong}))
    for changes in ({"pck_crl": "0"}, {"pck_crl": "zz"}, {"more": ""}):
        with pytest.raises(TamperingError):
            intel_bundle.parse_bundle(bundle(**changes))


def loaded(made: x509.Certificate) -> certificate.Certificate:
    return certificate.load(made.public_bytes(Encoding.DER), "x")


def test_sgx_extensions_are_read() -> None:
    found = intel_certificates.platform(loaded(leaf()), "x")
    assert (found.ppid, found.fmspc, found.pcesvn, found.components) == (PPID, FMSPC, 11, (3,) * 16)


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 4095), mask=st.integers(1, 255))
def test_spoiled_sgx_extensions_end_in_our_error_or_in_a_value(at: int, mask: int) -> None:
    data = bytearray(sgx_extensions())
    data[at % len(data)] ^= mask
    try:
        found = intel_certificates.platform(loaded(leaf(sgx=bytes(data))), "x")
    except TamperingError:
        return
    assert (len(found.ppid), len(found.fmspc), len(found.components)) == (16, 6, 16)


@pytest.mark.parametrize("signature", [b"", bytes(64), b"\xff" * 64, sign(1, b"m")[:63], sign(1, b"m") + b"\x00"])
def test_numbers_that_are_no_signature(signature: bytes) -> None:
    with pytest.raises(TamperingError):
        intel_signature.verify(leaf().public_key(), signature, b"m", "x")
    with pytest.raises(TamperingError):
        intel_signature.verify("no key", sign(1, b"m"), b"m", "x")
