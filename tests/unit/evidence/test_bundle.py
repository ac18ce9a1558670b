# SPDX-License-Identifier: Apache-2.0
"""Bundles of evidence: read whole or not at all, told by their bytes, judged by what is known (§1 to §3 of the page)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.evidence import bundle, carried, recognise, trial
from keyquorum.evidence.bundle import TECHNOLOGIES, Bundle
from keyquorum.evidence.result import Status
from unit.evidence.bundle_maker import sample
from unit.evidence.tpm_maker import OWNER, signed

PAGE = (Path(__file__).resolve().parents[3] / "docs/attestation-command.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_a_bundle_is_trusted_after_it_was_written_and_read(technology: str) -> None:
    found = sample(technology)
    given = bundle.parse(bundle.serialise(found.bundle))
    assert given == found.bundle
    result = trial.judge(given, found.known())
    assert (result.status, result.technology) == (Status.TRUSTED, technology), result.reason


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_test_roots_count_only_where_they_are_given(technology: str) -> None:
    found = sample(technology)
    result = trial.judge(found.bundle, found.known(roots=None))
    assert (result.status is Status.TRUSTED) == (technology == "tpm"), result.reason  # which has no root but its key


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_another_nonce_and_another_signer_are_refused(technology: str) -> None:
    found = sample(technology)
    nonce = trial.judge(found.bundle, found.known(nonce=bytes(len(found.nonce))))
    assert [check.name.rpartition(".")[2] in {"nonce", "report-data"} for check in nonce.failed] == [True]
    stranger = trial.judge(found.bundle, found.known(signers=()))
    assert stranger.failed[0].name == "policy.signature"


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_what_evidence_carries_is_told_without_believing_it(technology: str) -> None:
    found = sample(technology)
    assert carried.nonce(found.bundle) == found.nonce
    main = TECHNOLOGIES[technology].main if not technology.startswith("azure") else "attest"
    assert carried.nonce(found.bundle.with_part(main, b"cut")) == b""


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_evidence_is_told_by_its_bytes(technology: str) -> None:
    found = sample(technology).bundle
    main = TECHNOLOGIES[technology].main
    assert recognise.technology(found.part(main)) == technology
    assert recognise.technology(bundle.serialise(found)) == recognise.BUNDLE
    wrapped = recognise.wrap(found.part(main))
    assert wrapped is not None
    assert wrapped.parts == {main: found.part(main)}
    needs = set(TECHNOLOGIES[technology].needed) - {main}
    assert set(wrapped.missing) == needs
    if needs:
        with pytest.raises(MalformedError, match="lacks "):
            trial.judge(wrapped, sample(technology).known())


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"hello", bytes(1184), b"\x04\x00", b"HCLA", b"HCLA" + bytes(2000), b"\x10" + bytes(1183)]
)
def test_what_is_nothing_known_is_told_too(data: bytes) -> None:
    assert recognise.technology(data) == ""
    assert recognise.wrap(data) is None


def test_versions_that_nobody_knows_are_left_to_the_verifier() -> None:
    report = sample("snp").bundle.part("report")
    assert recognise.technology(b"\x04" + report[1:]) == "snp"
    quote = sample("tdx").bundle.part("quote")
    assert recognise.technology(b"\x06" + quote[1:]) == "tdx"
    known = sample("tdx").known()
    given = Bundle(technology="tdx", parts={"quote": b"\x06" + quote[1:]})
    assert [check.name for check in trial.judge(given, known).failed] == ["intel.quote.version"]


def table(**changes: Any) -> bytes:
    found = json.loads(bundle.serialise(sample("snp").bundle)) | changes
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


WRONG = {
    "version": table(version=2),
    "no version": table(version=...),
    "unknown technology": table(technology="cca"),
    "another technology": table(technology="nitro"),
    "unknown field": table(more=1),
    "no parts": table(parts={}),
    "unknown part": table(parts={"report": "AA==", "more": "AA=="}),
    "no base64": table(parts={"report": "A"}),
    "a list": b"[]",
    "cut": table()[:-1],
}


@pytest.mark.parametrize("case", WRONG)
def test_other_bundles_are_refused(case: str) -> None:
    with pytest.raises(TamperingError):
        bundle.parse(WRONG[case])


def test_a_part_has_its_place() -> None:
    found = sample("nitro").bundle
    with pytest.raises(TamperingError, match="has no place"):
        found.with_part("collateral", b"x")
    assert found.with_part("document", b"x").part("document") == b"x"


def test_values_of_pcrs_are_written_and_read() -> None:
    pcrs = {0: b"a" * 32, 7: b"b" * 48, 23: b""}
    data = bundle.join_pcrs(pcrs)
    assert bundle.split_pcrs(data) == pcrs
    assert bundle.split_pcrs(b"") == {}
    for wrong in (data[:-1], data + data, b"\x20\x00", b"\x00\x41" + bytes(65), b"\x07", data[34:] + data[:34]):
        with pytest.raises(TamperingError):
            bundle.split_pcrs(wrong)


def test_certificates_are_taken_apart() -> None:
    parts = bundle.split_certificates(sample("snp").bundle.part("certificates"))
    assert len(parts) == 3
    assert b"".join(parts) == sample("snp").bundle.part("certificates")
    for wrong in (parts[0][:-1], b"\x30", b"\x30\x80", bytes(70_000)):
        with pytest.raises(TamperingError):
            bundle.split_certificates(wrong)


def test_the_policies_must_be_those_of_the_evidence() -> None:
    found = sample("azure-snp")
    policies = found.known().policies
    with pytest.raises(MalformedError, match=r"needs a policy of the type .*snp-reference"):
        trial.judge(found.bundle, found.known(policies=policies[:2]))
    with pytest.raises(MalformedError, match="given twice"):
        trial.judge(found.bundle, found.known(policies=(*policies, policies[0])))
    with pytest.raises(MalformedError, match="is not for evidence of azure-snp"):
        trial.judge(found.bundle, found.known(policies=sample("nitro").known().policies))
    with pytest.raises(TamperingError):
        trial.judge(found.bundle, found.known(policies=(b"{}",)))
    with pytest.raises(MalformedError, match="needs the attestation key"):
        trial.judge(sample("tpm").bundle, sample("tpm").known(ak=b""))


def test_what_a_policy_says_that_it_is_decides_nothing() -> None:
    """A policy of enclaves in an envelope that calls it one of chips is read as one of chips, and refused."""
    found = sample("snp")
    (kind, _), ((_, other),) = found.policies[0], sample("nitro").policies
    result = trial.judge(found.bundle, found.known(policies=(signed(other, OWNER, kind),)))
    assert [check.name for check in result.failed] == ["policy.format"]


def test_the_page_has_every_technology_with_its_parts() -> None:
    for technology, parts in TECHNOLOGIES.items():
        row = ", ".join([f"`{name}`" for name in parts.needed] + [f"(`{name}`)" for name in parts.optional])
        assert f"| {technology} | {row} |" in PAGE
