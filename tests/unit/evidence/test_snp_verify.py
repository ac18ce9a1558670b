# SPDX-License-Identifier: Apache-2.0
"""From a report and its certificates to what AMD's root vouches for, one thing wrong at a time (§3, §4.1, §4.2)."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from keyquorum.evidence import snp_checks
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.result import Status, parse, serialise
from unit.evidence.ca_maker import START, authority, usage
from unit.evidence.snp_maker import (
    ASK,
    ASKED,
    ASVK,
    CHIP,
    STRANGER,
    Scene,
    ia5,
    integer,
    revocation,
    rsa_key,
)
from unit.evidence.tpm_maker import NOW, private

VLEK: dict[str, Any] = {"kind": "VLEK", "policy": {"signers": ["vlek"], "vlek-providers": ["cc.example.net"]}}
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
def test_a_guest_as_it_should_be_is_trusted(product: str, kind: str) -> None:
    scene = Scene(product=product, **(VLEK if kind == "VLEK" else {}))
    result = scene.appraise()
    assert (result.status, result.reason, result.failed) == (Status.TRUSTED, "", ())
    assert {check.name for check in result.checks} == snp_checks.REPORT
    waived = {check.name for check in result.waived}
    expected = {"snp.chain.revocation", "snp.chip.same", "snp.chip.listed"}
    expected |= {"snp.tcb.mitigations"} if product != "Turin" else set()
    hardware = {"VCEK": {"snp.certificate.provider", "snp.provider.allowed"}}
    expected |= hardware.get(kind, {"snp.certificate.chip", "snp.chip.masked"})
    assert waived == expected
    assert result.claims["snp.product"] == product
    assert result.claims["snp.signer"] == kind.lower()
    assert result.claims.get("snp.provider") == (None if kind == "VCEK" else "cc.example.net")
    assert result.claims["snp.chip-id"] == scene.chip.hex()
    authority = {"VCEK": "SEV-"}.get(kind, "SEV-VLEK-")
    names = [link.subject.partition(",")[0] for link in result.chain]
    assert names == [f"CN=SEV-{kind}", f"CN={authority}{product}", f"CN=ARK-{product}"]
    assert all(result.chain[0].sha256 != link.sha256 for link in result.chain[1:])
    assert parse(serialise(result)) == result


def signature(r: int, s: int) -> dict[int, bytes]:
    return {0x2A0: r.to_bytes(72, "little") + s.to_bytes(72, "little")}


# What is wrong, and the first check that says so
REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "torn": ({"evidence": {"report": bytes(1183)}}, "snp.report.size"),
    "version 4": ({"report": {0: b"\4"}}, "snp.report.version"),
    "other algorithm": ({"report": {0x34: b"\2"}}, "snp.report.algorithm"),
    "reserved byte": ({"report": {0x29F: b"\1"}}, "snp.report.reserved"),
    "reserved component": ({"report": {0x1E2: b"\1"}}, "snp.report.reserved"),
    "r is zero": ({"report": signature(0, 1)}, "snp.signature.structure"),
    "s is zero": ({"report": signature(1, 0)}, "snp.signature.structure"),
    "r is the order": ({"report": signature(ORDER, 1)}, "snp.signature.structure"),
    "s is too wide": ({"report": signature(1, 1 << 400)}, "snp.signature.structure"),
    "another chip's key": ({"signer": 45}, "snp.signature.value"),
    "another question": ({"challenge": {"report_data": ASKED[:-1] + b"?"}}, "snp.report-data"),
    "no question": ({"challenge": {"report_data": b""}}, "snp.report-data"),
    "half a question": ({"challenge": {"report_data": ASKED[:32]}}, "snp.report-data"),
    "another machine": ({"challenge": {"chip_id": CHIP[::-1]}}, "snp.chip.same"),
    "masked key": ({"report": {0x48: b"\2"}}, "snp.chip.masked"),
    "processor of Genoa": ({"report": {0x188: b"\x19\x11\x01"}}, "snp.product"),
    "unknown processor": ({"report": {0x188: b"\x19\x20\x01"}}, "snp.product"),
    "certificate of Genoa": ({"extensions": {"2": ia5("Genoa")}}, "snp.product"),
    "other boot loader": ({"report": {0x180: b"\5"}}, "snp.certificate.tcb"),
    "other microcode": ({"extensions": {"3.8": integer(218)}}, "snp.certificate.tcb"),
    "no microcode": ({"extensions": {"3.8": None}}, "snp.certificate.tcb"),
    "a component of Turin": ({"extensions": {"3.9": integer(0)}}, "snp.certificate.tcb"),
    "reserved in the TCB": ({"report": {0x182: b"\1"}}, "snp.certificate.tcb"),
    "another chip": ({"report": {0x1A0: b"\0"}}, "snp.certificate.chip"),
    "no chip": ({"report": {0x1A0: bytes(64)}}, "snp.certificate.chip"),
    "chip zero": ({"extensions": {"4": bytes(64)}, "report": {0x1A0: bytes(64)}}, "snp.certificate.chip"),
    "chip not named": ({"extensions": {"4": None}}, "snp.certificate.chip"),
    "half a chip": ({"extensions": {"4": CHIP[:8]}, "report": {0x1A0: CHIP[:8].ljust(64, b"\0")}}, "snp.certificate.chip"),
    "a provider's chip": ({"extensions": {"5": ia5("CN=cc.example.net")}}, "snp.certificate.provider"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPORTS)
def test_a_wrong_report_is_named(case: str) -> None:
    changes, expected = REPORTS[case]
    assert Scene(**changes).failed() == [expected]


CHAINS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no certificates": ({"evidence": {"certificates": ()}}, ["snp.chain.certificates"]),
    "torn certificate": ({"evidence": {"certificates": (b"\x30\x82\x01\x00",) * 3}}, ["snp.chain.certificates"]),
    "short key": (
        {"intermediate": {"key": private("rsa1024", ASK).public_key()}}, ["snp.chain.certificates"],
    ),
    "another root": (
        {"trust": {"anchors": ()}},
        ["snp.chain.root", "snp.chain.intermediate", "snp.chain.role", "snp.product", "snp.certificate.tcb"],
    ),
    "leaf by a stranger": ({"leaf": {"signer": STRANGER}}, ["snp.chain.signatures"]),
    "intermediate by a stranger": ({"intermediate": {"signer": STRANGER}}, ["snp.chain.signatures"]),
    "leaf of another issuer": ({"leaf": {"issuer": "SEV-Genoa"}}, ["snp.chain.signatures"]),
    "leaf with SHA-256": ({"leaf": {"algorithm": hashes.SHA256()}}, ["snp.chain.signatures"]),
    "leaf without PSS": ({"leaf": {"pss": False}}, ["snp.chain.signatures"]),
    "intermediate with SHA-256": ({"intermediate": {"algorithm": hashes.SHA256()}}, ["snp.chain.signatures"]),
    "intermediate without PSS": ({"intermediate": {"pss": False}}, ["snp.chain.signatures"]),
    "intermediate is no authority": ({"intermediate": {"extensions": authority(ca=False)}}, ["snp.chain.signatures"]),
    "intermediate may not sign": (
        {"intermediate": {"extensions": authority(bits=usage(digital_signature=True))}}, ["snp.chain.signatures"]
    ),
    "root has no room": ({"root": {"extensions": authority(depth=0)}}, ["snp.chain.signatures"]),
    "other leaf": ({"leaf": {"subject": "VCEK"}}, ["snp.chain.role"]),
    "other root": ({"root": {"subject": "ARK-Genoa", "issuer": "ARK-Genoa"}, "intermediate": {"issuer": "ARK-Genoa"}}, ["snp.chain.role"]),
    "not signed": ({"report": {0x48: b"\x1c"}}, ["snp.chain.role"]),
    "reserved signing key": ({"report": {0x48: b"\x08"}}, ["snp.chain.role"]),
    "VLEK that the report calls a VCEK": ({**VLEK, "report": {0x48: b"\0"}}, ["snp.chain.role"]),
    "VCEK that the report calls a VLEK": ({"report": {0x48: b"\4"}}, ["snp.chain.role"]),
    "VLEK below ASK": (
        {**VLEK, "leaf": {"issuer": "SEV-Milan", "signer": ASK}, "intermediate": {"subject": "SEV-Milan", "key": rsa_key(ASK).public_key()}},
        ["snp.chain.role", "snp.certificate.chip", "snp.certificate.provider"],
    ),
    "VCEK below ASVK": (
        {"leaf": {"issuer": "SEV-VLEK-Milan", "signer": ASVK}, "intermediate": {"subject": "SEV-VLEK-Milan", "key": rsa_key(ASVK).public_key()}},
        ["snp.chain.role"],
    ),
    "too early": ({"now": NOW - 86401}, ["snp.chain.validity"]),
    "too late": ({"now": NOW + 29 * 86400 + 1}, ["snp.chain.validity"]),
    "leaf expired": ({"leaf": {"end": START + dt.timedelta(hours=1)}}, ["snp.chain.validity"]),
    "intermediate expired": ({"intermediate": {"end": START + dt.timedelta(hours=1)}}, ["snp.chain.validity"]),
    "root expired": ({"root": {"end": START + dt.timedelta(hours=1)}}, ["snp.chain.validity"]),
    "VLEK of nobody": ({**VLEK, "extensions": {"5": None}}, ["snp.certificate.provider"]),
    "VLEK of a chip": ({**VLEK, "extensions": {"4": CHIP}}, ["snp.certificate.provider"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_a_wrong_chain_is_named(case: str) -> None:
    changes, expected = CHAINS[case]
    assert Scene(**changes).failed() == expected


def test_no_certificate_is_left_out_or_moved() -> None:
    scene = Scene()
    first, middle, root = chain = scene.certificates()
    scene.trust = {"anchors": scene.anchors(chain)}
    for given in ((first, middle), (first, root, middle), (middle, first, root), (first, middle, root, root)):
        scene.evidence = {"certificates": given}
        assert scene.failed()[0].startswith("snp.chain.")
    scene.evidence = {"certificates": chain}
    assert scene.failed() == []


def test_both_names_of_the_algorithm_are_the_same() -> None:
    """The outer one is not signed."""
    scene = Scene()
    leaf, *rest = scene.certificates()
    scene.trust = {"anchors": scene.anchors((leaf, *rest))}
    at = leaf.rindex(bytes.fromhex("a203020130"))
    assert at > leaf.index(bytes.fromhex("a203020130"))
    scene.evidence = {"certificates": (leaf[:at] + bytes.fromhex("a203020120") + leaf[at + 5 :], *rest)}
    assert scene.failed() == ["snp.chain.signatures"]


def test_a_root_counts_for_its_product_only() -> None:
    scene = Scene()
    scene.evidence = {"certificates": scene.certificates()}
    (anchor,) = scene.anchors(scene.evidence["certificates"])
    scene.trust = {"anchors": (replace(anchor, product="Genoa"),)}
    assert scene.failed() == ["snp.chain.role", "snp.product"]


def test_an_intermediate_that_is_not_pinned() -> None:
    """Even if the pinned root made it; unless the caller pins none, which shows."""
    scene = Scene()
    scene.evidence = {"certificates": scene.certificates()}
    (anchor,) = scene.anchors(scene.evidence["certificates"])
    scene.trust = {"anchors": (replace(anchor, intermediates=frozenset({"00" * 32})),)}
    assert scene.failed() == ["snp.chain.intermediate"]
    result = Scene(pinned=False).appraise()
    assert result.status == Status.TRUSTED
    assert "snp.chain.intermediate" in [check.name for check in result.waived]


def test_version_2_is_not_of_turin() -> None:
    fields = {0: b"\2", 0x188: bytes(3), 0x1F8: bytes(1), 0x200: bytes(1)}
    assert Scene(report=fields).failed() == []
    assert Scene(product="Turin", report=fields).failed() == ["snp.product"]


def test_a_chip_that_is_known_is_taken() -> None:
    assert Scene(challenge={"chip_id": CHIP}).failed() == []
    assert Scene(**VLEK, challenge={"chip_id": bytes(64)}).failed() == ["snp.chip.same"]


LISTS: dict[str, tuple[Revocation, list[str]]] = {
    "nothing revoked": (revocation(), []),
    "another revoked": (revocation(7), []),
    "intermediate revoked": (revocation(65537), ["snp.chain.revocation"]),
    "list expired": (revocation(end=START + dt.timedelta(hours=1)), ["snp.chain.revocation"]),
    "list by a stranger": (revocation(signer=STRANGER), ["snp.chain.revocation"]),
    "no list": (Revocation(demanded=True), ["snp.chain.revocation"]),
}


@pytest.mark.parametrize("case", LISTS)
def test_revocation(case: str) -> None:
    lists, expected = LISTS[case]
    scene = Scene()
    chain = scene.certificates()
    scene.evidence = {"certificates": chain}
    scene.trust = {"anchors": scene.anchors(chain), "revocation": lists}
    assert scene.failed() == expected
    shown = {check.name: check.outcome for check in scene.appraise().checks}
    assert shown["snp.chain.revocation"] == ("failed" if expected else "passed")


def test_everything_wrong_with_a_foreign_certificate_is_said_at_once() -> None:
    wrong = {"4": CHIP[::-1], "3.8": integer(30)}
    names = Scene(leaf={"signer": STRANGER}, extensions=wrong, signer=45).failed()
    assert names == ["snp.chain.signatures", "snp.certificate.tcb", "snp.certificate.chip", "snp.signature.value"]
