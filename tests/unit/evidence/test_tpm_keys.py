# SPDX-License-Identifier: Apache-2.0
"""Accepting a machine's keys: certificates of a maker's own, and one thing wrong at a time (docs/attestation.md §6)."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import ek_certificate, tpm_checks, tpm_keys, tpm_public
from keyquorum.evidence.certificate import MAX_BUNDLE, load, load_bundle, load_list
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.ek_certificate import EkTrust
from keyquorum.evidence.result import Outcome, Status
from keyquorum.evidence.tpm_keys import Activation, KeyEvidence
from keyquorum.evidence.tpm_wire import ECDSA, NULL, RSASSA
from unit.evidence import ca_maker
from unit.evidence.ca_maker import (
    END,
    INTERMEDIATE,
    ROOT,
    START,
    authority,
    der,
    endorsement,
    intermediate,
    maker_name,
    usage,
)
from unit.evidence.tpm_maker import EK, NOW, Key, private

DONE = Activation(secret=bytes(range(32)), answer=bytes(range(32)))
EK_PUBLIC: Any = private("rsa2048", 1).public_key()
DAY = dt.timedelta(days=1)


def evidence(certificate: x509.Certificate | None = None, **changes: Any) -> KeyEvidence:
    ak = changes.pop("ak", Key())
    parts: dict[str, Any] = {
        "ek": EK.area,
        "ak": ak.area,
        "ak_name": b"\x00\x0b" + hashlib.sha256(ak.area).digest(),
        "certificates": (der(certificate or endorsement(EK_PUBLIC)),),
    }
    return KeyEvidence(**(parts | changes))


def trust(**changes: Any) -> EkTrust:
    given: dict[str, Any] = {"roots": (ca_maker.root(),), "intermediates": (intermediate(),)} | changes
    given |= {name: tuple(load(der(one), name) for one in given[name]) for name in ("roots", "intermediates")}
    return EkTrust(**given)


def failed(
    found: KeyEvidence, believed: EkTrust | None = None, now: int = NOW, activation: Activation = DONE
) -> list[str]:
    result, key = tpm_keys.accept(found, believed or trust(), now, activation)
    assert (result.status == Status.TRUSTED) == (key is not None) == (not result.failed)
    return [check.name for check in result.failed]


def test_keys_as_they_should_be_are_accepted() -> None:
    result, key = tpm_keys.accept(evidence(), trust(), NOW, DONE)
    assert (result.status, result.reason) == (Status.TRUSTED, "")
    assert {check.name for check in result.checks} == tpm_checks.KEYS
    assert [check.name for check in result.waived] == ["tpm.ek.listed", "tpm.ek.revocation"]
    assert [link.subject for link in result.chain] == ["no name", "CN=intermediate", "CN=root"]
    assert result.claims["tpm.model"] == "test"
    assert key is not None
    assert key.qualified_name == tpm_public.qualified_name((tpm_public.parse(key.area, "key").name,))


def test_a_child_of_the_endorsement_key_has_another_place() -> None:
    _, key = tpm_keys.accept(evidence(under_ek=True), trust(), NOW, DONE)
    assert key is not None
    names = [tpm_public.parse(area, "key").name for area in (EK.area, Key().area)]
    assert key.qualified_name == tpm_public.qualified_name(names)


AKS: dict[str, tuple[dict[str, Any], str]] = {
    "unrestricted": ({"ak": Key(attributes=0x40072)}, "tpm.ak.attributes"),
    "decrypts": ({"ak": Key(attributes=0x70072)}, "tpm.ak.attributes"),
    "may move": ({"ak": Key(attributes=0x50070)}, "tpm.ak.attributes"),
    "may move with its parent": ({"ak": Key(attributes=0x50062)}, "tpm.ak.attributes"),
    "made elsewhere": ({"ak": Key(attributes=0x50052)}, "tpm.ak.attributes"),
    "any scheme": ({"ak": Key(scheme=NULL)}, "tpm.ak.scheme"),
    "another name": ({"ak_name": b"\x00\x0b" + bytes(32)}, "tpm.ak.name"),
    "no key": ({"ak": Key(hash="sha1")}, "tpm.ak.structure"),
    "no endorsement key": ({"ek": EK.area[:-1]}, "tpm.ek.structure"),
    "it signs": ({"ek": replace(EK, attributes=0x700B2).area}, "tpm.ek.attributes"),
    "not fixed": ({"ek": replace(EK, attributes=0x300B0).area}, "tpm.ek.attributes"),
    "no cipher": ({"ek": replace(EK, cipher=b"\x00\x10").area}, "tpm.ek.attributes"),
    "a scheme": ({"ek": replace(EK, scheme=RSASSA).area}, "tpm.ek.attributes"),
}


@pytest.mark.parametrize("case", AKS)
def test_wrong_keys_are_named(case: str) -> None:
    changes, expected = AKS[case]
    assert failed(evidence(**changes)) == [expected]


@pytest.mark.parametrize("answer", [b"", bytes(32), bytes(range(31)), bytes(range(33))], ids=len)
def test_only_the_secret_binds(answer: bytes) -> None:
    assert failed(evidence(), activation=Activation(secret=DONE.secret, answer=answer)) == ["tpm.ak.bound"]


def test_no_secret_binds_nothing() -> None:
    assert failed(evidence(), activation=Activation(secret=b"", answer=b"")) == ["tpm.ak.bound"]
    assert "secret" not in repr(Activation(secret=b"secret", answer=b"")).lower().replace("activation", "")


def test_a_challenge_is_no_trust() -> None:
    result, made = tpm_keys.challenge(evidence(), trust(), NOW, bytes(32), bytes(32))
    assert [check.name for check in result.failed] == ["tpm.ak.bound"]
    assert made is not None
    wrong, none = tpm_keys.challenge(evidence(ak=Key(attributes=0x40072)), trust(), NOW, bytes(32), bytes(32))
    assert [check.name for check in wrong.failed] == ["tpm.ak.attributes"]
    assert none is None, "no credential for a key that cannot be enrolled"


def test_a_listed_key_needs_no_certificate() -> None:
    listed = frozenset({ek_certificate.key_hash(tpm_public.parse(EK.area, "EK"))})
    for brought in ((), (b"malformed",)):
        found = evidence(certificates=brought)
        result, key = tpm_keys.accept(found, EkTrust(listed=listed), NOW, DONE)
        assert result.status == Status.TRUSTED
        assert key is not None
        assert {check.name for check in result.waived} >= {"tpm.ek.chain", "tpm.ek.maker", "tpm.ek.usage"}
        assert failed(found, EkTrust(listed=frozenset({bytes(32)}))) == ["tpm.ek.certificate"]


NOT_AFTER = int(END.timestamp())
LATE = int((END - DAY).timestamp())
EC_LEAF: Any = private("p384", 30).public_key()
CERTIFICATES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "another key": ({"key": EC_LEAF}, ["tpm.ek.key"]),
    "server": ({"purpose": "1.3.6.1.5.5.7.3.1"}, ["tpm.ek.usage"]),
    "signs": ({"bits": usage(digital_signature=True)}, ["tpm.ek.usage"]),
    "issues": ({"bits": usage(key_encipherment=True, key_cert_sign=True)}, ["tpm.ek.usage"]),
    "authority": ({"ca": True}, ["tpm.ek.usage"]),
    "no maker": ({"san": maker_name(of1=None)}, ["tpm.ek.maker"]),
    "no version": ({"san": maker_name(of3=None)}, ["tpm.ek.maker"]),
    "host name": ({"san": x509.SubjectAlternativeName([x509.DNSName("a.example")])}, ["tpm.ek.maker"]),
    "loose": ({"critical": False}, ["tpm.ek.maker"]),
    "expired": ({"start": START - 9 * DAY, "end": START}, ["tpm.ek.validity"]),
    "of tomorrow": ({"start": START + 2 * DAY}, ["tpm.ek.validity"]),
    "critical": ({"more": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), True),)}, ["tpm.ek.chain"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CERTIFICATES)
def test_wrong_certificates_are_named(case: str) -> None:
    changes, expected = CERTIFICATES[case]
    key = changes.get("key", EK_PUBLIC)
    made = endorsement(key, **{name: value for name, value in changes.items() if name != "key"})
    assert failed(evidence(made)) == expected


def test_a_named_certificate_may_say_its_maker_loosely() -> None:
    assert failed(evidence(endorsement(EK_PUBLIC, subject="a TPM", critical=False))) == []


def test_names_longer_than_allowed_are_read() -> None:
    """As in the certificates of a large cloud, whose issuer's name has 79 characters."""
    whole = der(endorsement(EK_PUBLIC, subject="x" * 64))
    subject = b"\x0c\x40" + b"x" * 64
    assert whole.count(subject) == 1
    assert load(whole, "it").subject_text == "CN=" + "x" * 64


CHAINS: dict[str, dict[str, Any]] = {
    "no root": {"roots": ()},
    "no intermediate": {"intermediates": ()},
    "no authority": {"intermediates": (intermediate(authority(ca=False)),)},
    "may not sign": {"intermediates": (intermediate(authority(bits=usage(crl_sign=True))),)},
    "no usage": {"intermediates": (intermediate(authority()[:1]),)},
    "another key": {"intermediates": (ROOT.sign("intermediate", EC_LEAF, authority()),)},
    "by nobody": {"intermediates": (INTERMEDIATE.sign("intermediate", private("p256", 21).public_key(), authority()),)},
    "forged root": {"roots": (INTERMEDIATE.sign("root", EC_LEAF, authority()),)},
    "shallow root": {"roots": (ROOT.sign("root", private("p256", 20).public_key(), authority(depth=0)),)},
    "too many": {"intermediates": (intermediate(),) * 9},
}


@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_to_nowhere_is_refused(case: str) -> None:
    assert failed(evidence(), trust(**CHAINS[case])) == ["tpm.ek.chain"]


def test_a_depth_is_counted() -> None:
    deep = ROOT.sign("root", private("p256", 20).public_key(), authority(depth=1))
    assert failed(evidence(), trust(roots=(deep,), intermediates=(intermediate(authority(depth=0)),))) == []


def test_a_way_that_leads_nowhere_is_not_the_only_one() -> None:
    stray = INTERMEDIATE.sign("intermediate", private("p256", 21).public_key(), authority())
    assert failed(evidence(), trust(intermediates=(stray, intermediate()))) == []


def test_the_machine_may_bring_its_intermediates_but_no_root() -> None:
    given = evidence(certificates=(der(endorsement(EK_PUBLIC)), der(intermediate())))
    assert failed(given, trust(intermediates=())) == []
    own = evidence(certificates=(der(endorsement(EK_PUBLIC)), der(intermediate()), der(ca_maker.root())))
    assert failed(own, EkTrust()) == ["tpm.ek.chain"]
    broken = evidence(certificates=(der(endorsement(EK_PUBLIC)), b"\x30\x82\x00\x04abcd"))
    assert failed(broken) == ["tpm.ek.chain"]


def test_a_small_key_issues_nothing() -> None:
    small = ca_maker.Authority(subject="root", key="rsa1024", number=22)
    roots = (small.sign("root", private("rsa1024", 22).public_key(), authority()),)
    below = small.sign("intermediate", private("p256", 21).public_key(), authority())
    assert failed(evidence(), trust(roots=roots, intermediates=(below,))) == ["tpm.ek.chain"]


def test_every_certificate_must_be_valid_at_the_given_instant() -> None:
    assert failed(evidence(), now=NOT_AFTER) == []
    assert failed(evidence(), now=NOT_AFTER + 1) == ["tpm.ek.validity"]
    assert failed(evidence(), now=int(START.timestamp()) - 1) == ["tpm.ek.validity"]
    short = intermediate(end=END - 2 * DAY)
    assert failed(evidence(), trust(intermediates=(short,)), now=LATE) == ["tpm.ek.validity"]


def revocation(*lists: bytes, demanded: bool = False) -> EkTrust:
    loaded = tuple(load_list(data, "a list") for data in lists)
    return trust(revocation=Revocation(lists=loaded, demanded=demanded))


def test_revocation() -> None:
    result, _ = tpm_keys.accept(evidence(), revocation(ROOT.revoke(), INTERMEDIATE.revoke(1)), NOW, DONE)
    (check,) = [check for check in result.checks if check.name == "tpm.ek.revocation"]
    assert (check.outcome, check.actual) == (Outcome.PASSED, "2 looked up")
    for believed in (
        revocation(INTERMEDIATE.revoke(77)),
        revocation(ROOT.revoke(5)),
        revocation(INTERMEDIATE.revoke(), INTERMEDIATE.revoke(77)),
        revocation(demanded=True),
        revocation(ROOT.revoke(), demanded=True),
        revocation(INTERMEDIATE.revoke(end=START + DAY / 2)),
        revocation(INTERMEDIATE.revoke(start=START + 2 * DAY)),
        revocation(INTERMEDIATE.revoke(number=23)),
    ):
        assert failed(evidence(), believed) == ["tpm.ek.revocation"]
    assert failed(evidence(), revocation(ROOT.revoke(), INTERMEDIATE.revoke(), demanded=True)) == []


def test_what_an_nv_index_has_after_the_certificate() -> None:
    whole = der(endorsement(EK_PUBLIC))
    for fill in (bytes(100), b"\xff" * 100):
        assert failed(evidence(certificates=(whole + fill,))) == []
    for more in (b"\x00\xff", b"\x01", whole, bytes(10_000)):
        assert failed(evidence(certificates=(whole + more,))) == ["tpm.ek.certificate"]


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x82\x01\x00", b"\x31\x82\x00\x00", b"-----BEGIN"]
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(TamperingError):
        load(data, "it")
    with pytest.raises(TamperingError):
        load_list(data, "it")


def test_only_version_3_with_a_serial_number() -> None:
    """Older versions have no extensions that would say what a certificate is for."""
    whole = der(endorsement(EK_PUBLIC))
    version, serial = b"\xa0\x03\x02\x01\x02", b"\x02\x01\x4d"
    assert whole.count(version + serial) == 1
    for wrong in (b"\xa0\x03\x02\x01\x00" + serial, version + b"\x02\x01\x00", version + b"\x02\x01\xb3"):
        assert failed(evidence(certificates=(whole.replace(version + serial, wrong),))) == ["tpm.ek.certificate"]


def test_a_bundle_of_roots_in_pem() -> None:
    made = (ca_maker.root(), intermediate())
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in made)
    found = load_bundle(b"the roots of a maker\n" + pem + b"and a word after them\n", "roots")
    assert [one.der for one in found] == [der(one) for one in made]
    for wrong in (b"", b"no PEM", pem[:-40], pem.replace(b"A", b"B", 3), pem + b"\n" * MAX_BUNDLE):
        with pytest.raises(TamperingError):
            load_bundle(wrong, "roots")


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=80), at=st.integers(0, 600))
def test_garbage_in_a_certificate_ends_in_our_error(data: bytes, at: int) -> None:
    whole = der(endorsement(EK_PUBLIC))
    for spoiled in (data, whole[:4] + data, whole[:at] + data + whole[at + len(data) :]):
        try:
            assert load(spoiled, "it").link.sha256
        except TamperingError:
            continue


def test_every_scheme_of_an_attestation_key() -> None:
    for key in (Key(scheme=ECDSA), Key(kind="rsa2048", scheme=RSASSA), Key(kind="p384", hash="sha384")):
        assert failed(evidence(ak=key)) == []
