# SPDX-License-Identifier: Apache-2.0
"""What a signed set and a policy say of an enclave: written and read alike, and strict."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import KeyquorumError, MalformedError, TamperingError, UsageError
from keyquorum.holders import enclave_enrolment, enclave_where
from keyquorum.linux import collateral_store
from keyquorum.model import explain, holder_options, strict_json, token_size
from keyquorum.model import policy as policies
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import EnclaveOptions
from unit.evidence import snp_maker
from unit.evidence.tpm_maker import OWNER, signed
from unit.holders.enclaves import Owner
from unit.holders.test_enclave_proof import STRANGER


@pytest.mark.parametrize("test_roots", [True, False])
def test_round_trip(tmp_path: Path, test_roots: bool) -> None:
    owner = Owner(str(tmp_path), "azure-snp", test_roots=test_roots)
    table = enclave_where.to_json(owner.where, owner.attested)
    assert enclave_where.parse(table) == (owner.where, owner.attested)
    assert owner.attested.warning == (enclave_where.LOUD if test_roots else "")


def test_its_size_is_the_one_that_policies_are_told(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    where = owner.where.with_(authority=bytes(430))
    found = len(strict_json.serialise(enclave_where.to_json(where, owner.attested)))
    assert abs(found - token_size._WHERE["enclave"]) < 250


WRONG: dict[str, tuple[tuple[str, ...], Any]] = {
    "no part": (("attested",), None),
    "no signer": (("attested", "signer"), ""),
    "no policy": (("attested", "policies"), []),
    "too many policies": (("attested", "policies"), [{"path": "/a", "type": "t", "serial": 1}] * 4),
    "a policy of no serial": (("attested", "policies"), [{"path": "/a", "type": "t", "serial": 0}]),
    "more": (("attested", "more"), 1),
    "half a root": (("attested", "test_roots"), {"path": "/a"}),
    "more of a root": (("attested", "test_roots"), {"path": "/a", "sha256": "00" * 32, "more": 1}),
    "another version": (("version",), 2),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_understood_is_refused(tmp_path: Path, wrong: str) -> None:
    owner = Owner(str(tmp_path), "snp")
    table = copy.deepcopy(enclave_where.to_json(owner.where, owner.attested))
    (*path, last), value = WRONG[wrong]
    at = table
    for name in path:
        at = at[name]
    at[last] = value
    with pytest.raises(TamperingError):
        enclave_where.parse(table)


def test_test_roots_cannot_be_forgotten(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    table = enclave_where.to_json(owner.where, owner.attested)
    del table["attested"]["test_roots"]
    with pytest.raises(TamperingError, match="test_roots"):
        enclave_where.parse(table)


HOLDER = {"id": "eu.example", "release": "/r", "reference": "/v", "appraisal": ["/a"]}


def options(**changes: Any) -> EnclaveOptions:
    fields = Fields(HOLDER | changes, "policy.toml", MalformedError)
    found: EnclaveOptions = holder_options.READERS["enclave"](fields)
    fields.finish()
    return found


def test_the_options_and_what_they_are_called() -> None:
    assert options().collateral == collateral_store.DIRECTORY
    table = {"version": 1, "threshold": 1, "of": ["eu"], "volume": {"allow_single_holder": True}}
    for changes, words in (({}, "enclave eu.example"), ({"test_roots": "/t"}, "enclave eu.example, by TEST ROOTS")):
        read = policies.parse(table | {"holder": {"eu": {"kind": "enclave", **HOLDER, **changes}}}, "x")
        assert explain.describe(read.holders[0]) == words
        assert not explain.asks_person(read.holders[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"appraisal": []},
        {"appraisal": ["/a", "/a"]},
        {"appraisal": ["a"]},
        {"appraisal": ["/a", "/b", "/c", "/d"]},
        {"appraisal": "/a"},
        {"collateral": "store"},
        {"test_roots": "roots.pem"},
        {"appraisal": ["/a", "/my policy.json"]},
        {"collateral": "/my store"},
        {"test_roots": "/roots of mine.pem"},
    ],
)
def test_options_that_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        options(**changes)


def test_what_is_read_at_an_enrolment(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    given = options(appraisal=[owner.policies[0].path], test_roots=owner.attested.test_roots)
    assert enclave_enrolment.read(given, OWNER.public) == (
        owner.attested.policies,
        owner.attested.test_roots_hash,
    )


def test_files_that_are_refused_at_an_enrolment(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "azure-snp")
    snp, hcl, tpm = (one.path for one in owner.policies)

    def refused(*paths: str, key: Any = OWNER.public, **changes: Any) -> str:
        with pytest.raises(KeyquorumError) as caught:
            enclave_enrolment.read(options(appraisal=list(paths), **changes), key)
        assert isinstance(caught.value, (MalformedError, UsageError))
        return caught.value.message

    assert "not those of one kind of enclave" in refused(snp, hcl)
    assert "not those of one kind of enclave" in refused(tpm)
    assert "signed by" in refused(snp, key=STRANGER.public)
    assert "there is no appraisal policy" in refused(str(tmp_path / "nothing"))
    plain = owner.write("plain.json", b"{}")
    assert "plain.json" in refused(plain)
    other = owner.write("other.signed", signed(snp_maker.policy_table(), kind="application/x"))
    assert "other.signed" in refused(other)
    assert "no.pem" in refused(snp, test_roots=owner.write("no.pem", b"no certificate"))
    unsigned = owner.write("unsigned.json", json.dumps(snp_maker.policy_table()).encode())
    assert "not signed" in refused(unsigned, key=None)
