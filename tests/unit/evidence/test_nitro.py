# SPDX-License-Identifier: Apache-2.0
"""Documents of Nitro Enclaves under test roots, one thing wrong at a time (docs/attestation-nitro.md §3)."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import cbor, nitro_appraisal, nitro_document, nitro_policy
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.nitro_appraisal import NitroChallenge
from keyquorum.evidence.result import Outcome, Status, parse, serialise
from keyquorum.model import strict_json
from unit.evidence.ca_maker import authority, usage
from unit.evidence.nitro_maker import END, PCRS, SIGNS, START, TABLE, Scene, encode, key
from unit.evidence.tpm_maker import NONCE, NOW

ZERO = bytes(48)


def test_an_enclave_as_it_should_be_is_trusted() -> None:
    result = Scene().appraise()
    assert (result.status, result.reason, result.waived) == (Status.TRUSTED, "", ())
    assert {check.name for check in result.checks} == set(nitro_appraisal.REFERENCES)
    assert result.claims["nitro.pcr0"] == PCRS[0].hex()
    assert {"nitro.pcr3", "nitro.pcr8"} < set(result.claims)
    assert "nitro.pcr9" not in result.claims
    assert [link.subject for link in result.chain] == ["CN=enclave", "CN=host", "CN=region", "CN=root"]
    assert parse(serialise(result)) == result
    assert Scene(tag=b"\xd2").failed() == []


DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "more after it": ({"after": b"\0"}, ["nitro.document.cbor"]),
    "another tag": ({"tag": b"\xd1"}, ["nitro.document.cbor"]),
    "tagged twice": ({"tag": b"\xd2\xd2"}, ["nitro.document.cbor"]),
    "too long": ({"after": bytes(16384)}, ["nitro.document.cbor"]),
    "five members": ({"envelope": {4: b""}}, ["nitro.document.cbor"]),
    "short signature": ({"envelope": {3: bytes(95)}}, ["nitro.document.cbor"]),
    "no payload": ({"envelope": {2: None}}, ["nitro.document.cbor"]),
    "ES256": ({"envelope": {0: bytes.fromhex("a10126")}}, ["nitro.document.header"]),
    "a key's name": ({"envelope": {1: {4: b"key"}}}, ["nitro.document.header"]),
    "protected twice": ({"envelope": {0: bytes.fromhex("a2013822013822")}}, ["nitro.document.header"]),
    "no map": ({"payload": b"\x80"}, ["nitro.document.fields"]),
    "indefinite map": ({"payload": b"\xbf\xff"}, ["nitro.document.fields"]),
    "no module": ({"drop": "module_id"}, ["nitro.document.fields"]),
    "empty module": ({"document": {"module_id": ""}}, ["nitro.document.fields"]),
    "SHA-256": ({"document": {"digest": "SHA256"}}, ["nitro.document.fields"]),
    "no instant": ({"document": {"timestamp": 0}}, ["nitro.document.fields"]),
    "instant in words": ({"document": {"timestamp": "now"}}, ["nitro.document.fields"]),
    "no PCRs": ({"document": {"pcrs": {}}}, ["nitro.document.fields"]),
    "PCR 32": ({"pcrs": {32: ZERO}}, ["nitro.document.fields"]),
    "a PCR in words": ({"pcrs": {"0": ZERO}}, ["nitro.document.fields"]),
    "short PCR": ({"pcrs": {0: bytes(32)}}, ["nitro.document.fields"]),
    "no bundle": ({"document": {"cabundle": []}}, ["nitro.document.fields"]),
    "empty certificate": ({"document": {"cabundle": [b""]}}, ["nitro.document.fields"]),
    "wide certificate": ({"document": {"certificate": bytes(1025)}}, ["nitro.document.fields"]),
    "empty public key": ({"document": {"public_key": b""}}, ["nitro.document.fields"]),
    "wide user data": ({"document": {"user_data": bytes(513)}}, ["nitro.document.fields"]),
    "nonce in words": ({"document": {"nonce": "nonce"}}, ["nitro.document.fields"]),
    "new field": ({"document": {"more": 1}}, ["nitro.document.fields"]),
    "no certificate": ({"document": {"certificate": b"\x30\x82\x00\x04abcd"}}, ["nitro.chain.certificates"]),
    "another root": ({"challenge": {"roots": frozenset({"00" * 32})}}, ["nitro.chain.root"]),
    "no root": ({"challenge": {"roots": frozenset()}}, ["nitro.chain.root"]),
    "leaf by a stranger": ({"leaf": {"signer": 64}}, ["nitro.chain.path"]),
    "intermediate by a stranger": ({"middle": {"signer": 64}}, ["nitro.chain.path"]),
    "leaf with SHA-224": ({"leaf": {"algorithm": hashes.SHA224()}}, ["nitro.chain.path"]),
    "no authority": ({"middle": {"extensions": authority(ca=False)}}, ["nitro.chain.path"]),
    "no room for a leaf": ({"root": {"extensions": authority(depth=1)}}, ["nitro.chain.path"]),
    "may not sign": ({"middle": {"extensions": authority(bits=usage(crl_sign=True))}}, ["nitro.chain.path"]),
    "leaf is an authority": ({"leaf": {"extensions": authority()}}, ["nitro.chain.leaf"]),
    "leaf signs certificates": (
        {"leaf": {"extensions": [SIGNS[0], (usage(digital_signature=True, key_cert_sign=True), True)]}}, ["nitro.chain.leaf"]
    ),
    "leaf signs lists": (
        {"leaf": {"extensions": [SIGNS[0], (usage(digital_signature=True, crl_sign=True), True)]}}, ["nitro.chain.leaf"]
    ),
    "leaf for nothing": ({"leaf": {"extensions": SIGNS[:1]}}, ["nitro.chain.leaf"]),
    "too early": ({"now": NOW - 61}, ["nitro.chain.validity"]),
    "too late": ({"now": int(END.timestamp()) + 1}, ["nitro.chain.validity"]),
    "intermediate expired": ({"middle": {"end": START + dt.timedelta(seconds=30)}}, ["nitro.chain.validity"]),
    "another key": ({"signer": 64}, ["nitro.signature"]),
    "zero signature": ({"envelope": {3: bytes(96)}}, ["nitro.signature"]),
    "short nonce": ({"challenge": {"nonce": NONCE[:31]}, "document": {"nonce": NONCE[:31]}}, ["nitro.nonce-size"]),
    "another nonce": ({"document": {"nonce": NONCE[::-1]}}, ["nitro.nonce"]),
    "null nonce": ({"document": {"nonce": None}}, ["nitro.nonce"]),
    "other user data": ({"document": {"user_data": b"other"}}, ["nitro.user-data"]),
    "null user data": ({"document": {"user_data": None}}, ["nitro.user-data"]),
    "another public key": ({"document": {"public_key": b"other"}}, ["nitro.public-key"]),
    "left out": ({"drop": "public_key"}, ["nitro.public-key"]),
    "old": ({"document": {"timestamp": NOW * 1000 - 60_001}}, ["nitro.age"]),
    "of the future": ({"document": {"timestamp": NOW * 1000 + 5_001}}, ["nitro.age"]),
    "debug": ({"pcrs": {0: ZERO, 1: ZERO, 2: ZERO}}, ["nitro.debug", "nitro.pcrs"]),
    "one of them zero": ({"pcrs": {1: ZERO}}, ["nitro.debug", "nitro.pcrs"]),
    "another image": ({"pcrs": {0: b"?" * 48}}, ["nitro.pcrs"]),
    "another role": ({"pcrs": {3: b"?" * 48}}, ["nitro.pcrs"]),
    "not there": ({"policy": {"pcrs": TABLE["pcrs"] | {"31": [ZERO.hex()]}}}, ["nitro.pcrs"]),
    "expired policy": ({"policy": {"expires": NOW}}, ["policy.validity"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_what_is_wrong_is_named(case: str) -> None:
    changes, expected = DOCUMENTS[case]
    assert Scene(**changes).failed() == expected


def failed(data: bytes, root: bytes) -> list[str]:
    checks = Checks(nitro_appraisal.REFERENCES)
    challenge = NitroChallenge(nonce=NONCE, roots=frozenset({hashlib.sha256(root).hexdigest()}))
    found = nitro_appraisal.verify(data, challenge, NOW, checks)
    names = [check.name for check in checks.conclude("nitro", NOW, frozenset()).failed]
    assert (found is None) == bool(names)
    return names


def test_certificates_out_of_order_are_refused() -> None:
    scene = Scene()
    root, region, host, leaf = chain = scene.chain()
    assert failed(scene.data(chain), root) == []
    for bundle in ([root, host, region], [root, region, region, host], [root, region], [root, host, region, host]):
        assert failed(Scene(document={"cabundle": bundle}).data(chain), root) == ["nitro.chain.path"]
    without_root = Scene(document={"cabundle": [region, host]}).data(chain)
    assert failed(without_root, root) == ["nitro.chain.root"]
    padded = Scene(document={"certificate": leaf + b"\0"}).data(chain)
    assert failed(padded, root) == ["nitro.chain.certificates"]
    alone = Scene(document={"cabundle": [leaf]}).data(chain)
    assert failed(alone, leaf) == ["nitro.chain.path"]


def test_a_key_on_another_curve_is_refused() -> None:
    assert Scene(leaf={"public": key(65, "p256").public_key()}).failed() == ["nitro.chain.leaf", "nitro.signature"]


def test_what_is_loosened_shows() -> None:
    zeros = {0: ZERO, 1: ZERO, 2: ZERO}
    loose = {"debug": "any", "pcrs": dict.fromkeys(TABLE["pcrs"], "any") | {"8": [ZERO.hex()]}}
    result = Scene(pcrs=zeros, policy=loose, challenge={"user_data": None, "public_key": None}).appraise()
    assert result.status == Status.TRUSTED, result.reason
    waived = [check.name for check in result.checks if check.outcome == Outcome.WAIVED]
    assert waived == ["nitro.user-data", "nitro.public-key", "nitro.debug"]


WRONG: dict[str, dict[str, Any]] = {
    "a new field": {"more": 1},
    "no age": {"max-age": 0},
    "a year": {"max-age": 31_536_000},
    "debug allowed": {"debug": "allowed"},
    "PCR 4 forgotten": {"pcrs": {name: rule for name, rule in TABLE["pcrs"].items() if name != "4"}},
    "everybody": {"pcrs": dict.fromkeys(TABLE["pcrs"], "any")},
    "unknown PCR": {"pcrs": TABLE["pcrs"] | {"32": "any"}},
    "PCR 00": {"pcrs": TABLE["pcrs"] | {"00": "any"}},
    "short value": {"pcrs": TABLE["pcrs"] | {"0": ["00"]}},
    "a text": {"pcrs": TABLE["pcrs"] | {"0": "all"}},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_that_is_not_understood_denies(case: str) -> None:
    assert Scene(policy=WRONG[case]).failed() == ["policy.format"]


@pytest.mark.parametrize("field", TABLE)
def test_no_field_of_a_policy_has_a_default(field: str) -> None:
    with pytest.raises(TamperingError):
        nitro_policy.parse(strict_json.serialise({name: value for name, value in TABLE.items() if name != field}))


NOT_STRICT = {
    "long number": "1817", "long size": "5803616263", "wide size": "590003616263", "wider": "1a0000ffff",
    "indefinite bytes": "5f4161ff", "indefinite text": "7f6161ff", "indefinite list": "9f01ff", "indefinite map": "bfff",
    "reserved": "1c", "break": "ff", "false": "f4", "undefined": "f7", "float": "f93c00", "inner tag": "81c101",
    "key twice": "a201010102", "bytes as key": "a1416101", "list as key": "a1800101", "null as key": "a1f601",
    "no UTF-8": "61ff", "torn": "5820", "many": "9bffffffffffffffff", "many in a map": "baffffffff", "nothing": "",
    "deep": "81" * 10 + "01",
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_STRICT)
def test_other_encodings_are_refused(case: str) -> None:
    with pytest.raises(TamperingError):
        cbor.parse(bytes.fromhex(NOT_STRICT[case]), "value", 100)


VALUES = st.recursive(
    st.none() | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=300) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-9, 300) | st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    try:
        found = cbor.parse(encode(value), "value", 1 << 16)
    except TamperingError as problem:
        assert "deep" in problem.problem  # noqa: PT017 (only that may be refused)
        return
    assert found == value


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_what_is_read_has_one_encoding(data: bytes) -> None:
    try:
        value = cbor.parse(data, "value", 60)
    except TamperingError:
        return
    assert encode(value) == data


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=9))
def test_a_document_is_read_or_refused(offset: int, value: bytes) -> None:
    whole = _WHOLE[:offset] + value + _WHOLE[offset + len(value) :]
    try:
        nitro_document.parse(nitro_document.open_envelope(whole).payload)
    except TamperingError:
        return


_SCENE = Scene()
_WHOLE = _SCENE.data(_SCENE.chain())
