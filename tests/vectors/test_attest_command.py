# SPDX-License-Identifier: Apache-2.0
"""Genuine evidence as it lies in a file: told by its bytes, judged through the one door with the makers' own roots.

And spoiled byte by byte, each part of it: some bytes of each in the ordinary run, every byte in `make fuzz`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from keyquorum.errors import TamperingError
from keyquorum.evidence import recognise, trial
from keyquorum.evidence.result import Status
from vectors import genuine

Vectors = Callable[[str], Path]
KINDS = {"snp": "snp", "tdx-v4": "tdx", "tdx-v5": "tdx", "sgx-v3": "sgx", "nitro": "nitro"}
LONG = settings.get_profile("long").max_examples
SOME = 23  # bytes of each part


def test_everything_in_the_manifest_is_told_by_its_bytes(vectors: Vectors) -> None:
    for row in json.loads(vectors("attest/MANIFEST.json").read_text()):
        data = vectors(f"attest/{row['path']}").read_bytes()
        found = recognise.technology(bytes.fromhex(data.decode()) if row["path"].endswith(".hex") else data)
        if row["kind"] in KINDS:
            assert found == KINDS[row["kind"]], row["path"]
        elif row["path"].endswith(".attest"):
            assert found == "tpm", row["path"]
        elif row["path"].endswith(".bin"):
            assert found == ("azure-tdx" if "az-tdx" in row["path"] else "azure-snp"), row["path"]


@pytest.mark.parametrize("name", genuine.CASES)
def test_the_one_door_gives_the_verdict_of_each_technology(vectors: Vectors, name: str) -> None:
    case = genuine.CASES[name](vectors)
    assert not case.bundle.missing
    result = trial.judge(case.bundle, case.known)
    assert tuple(check.name for check in result.failed) == case.failed, result.reason
    assert (result.status is Status.TRUSTED) == (case.failed == ())


def test_enough_of_it_is_trusted_for_the_next_test_to_mean_something(vectors: Vectors) -> None:
    trusted = [name for name in genuine.CASES if not genuine.CASES[name](vectors).failed]
    assert len(trusted) >= 8
    assert len(genuine.CASES) >= 35


@pytest.mark.parametrize("name", genuine.CASES)
def test_no_flipped_byte_of_any_part_makes_a_refusal_trust(vectors: Vectors, name: str) -> None:
    """What was trusted may stay trusted where a byte means nothing, and then it claims what it claimed before."""
    case = genuine.CASES[name](vectors)
    before = trial.judge(case.bundle, case.known)
    everything = settings().max_examples >= LONG
    for part, data in case.bundle.parts.items():
        for at in range(0, len(data), 1 if everything else max(1, len(data) // SOME)):
            spoiled = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
            try:
                found = trial.judge(case.bundle.with_part(part, spoiled), case.known)
            except TamperingError:
                continue
            if found.status is Status.TRUSTED:
                assert before.status is Status.TRUSTED, f"{part}, byte {at}"
                assert found.claims == before.claims, f"{part}, byte {at}"
