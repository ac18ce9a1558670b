# SPDX-License-Identifier: Apache-2.0
"""The sealing key as a file. (In a TPM and on a token: tests/devices/test_custodian_sealing_key.py.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyquorum.custodian import sealing_key
from keyquorum.custodian.sealing_key import FILE, Surroundings
from keyquorum.errors import KeyquorumError, MalformedError, RefusedError, UsageError
from keyquorum.holders.contract import Tuning
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import deposit_messages
from unit.custodian.notes import FRAGMENT, ORIGIN
from unit.custodian.offices import SECRET, a_key, sealed_identity


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    answers = LocalAnswers(credentials="", descriptors={}, prompt=None, seconds=1, keep=False)
    return Surroundings(path=str(tmp_path / "sealing.json"), origin=ORIGIN, answers=answers, tuning=Tuning())


def test_a_key_is_there_again(around: Surroundings, tmp_path: Path) -> None:
    made = sealing_key.make(FILE, "", around)
    loaded = sealing_key.load(around)
    assert loaded.public == made.public
    assert loaded.enrolment_secret(b"payload") == made.enrolment_secret(b"payload")
    assert loaded.enrolment_secret(b"payload") != loaded.enrolment_secret(b"Payload")
    with loaded.open(sealed_identity(made), deposit_messages.sealing_info(ORIGIN, "web-1", FRAGMENT)) as found:
        assert bytes(found.view) == SECRET
    assert sorted(os.listdir(tmp_path)) == ["sealing.json", "sealing.key"]
    for name in os.listdir(tmp_path):
        assert os.stat(tmp_path / name).st_mode & 0o777 == 0o600
    assert (tmp_path / "sealing.key").stat().st_size == 32
    assert "seed" not in repr(made)


def test_what_was_sealed_opens_for_this_place_only() -> None:
    key, other = a_key(7), a_key(8)
    sealed = sealed_identity(key)
    info = deposit_messages.sealing_info(ORIGIN, "web-1", FRAGMENT)
    with key.open(sealed, info) as found:
        assert bytes(found.view) == SECRET
    for wrong in (
        deposit_messages.sealing_info(ORIGIN, "db-1", FRAGMENT),
        deposit_messages.sealing_info("another.example", "web-1", FRAGMENT),
        deposit_messages.sealing_info(ORIGIN, "web-1", FRAGMENT.with_(epoch=4)),
    ):
        with pytest.raises(RefusedError, match="not sealed to this custodian"):
            key.open(sealed, wrong)
    with pytest.raises(RefusedError):
        other.open(sealed, info)
    with pytest.raises(RefusedError):
        key.open(sealed.with_(enc=sealed.enc[:-32] + bytes(32)), info)


def test_no_key_is_overwritten(around: Surroundings) -> None:
    made = sealing_key.make(FILE, "", around)
    with pytest.raises(UsageError, match="is there already"):
        sealing_key.make(FILE, "", around)
    os.unlink(around.path)
    with pytest.raises(KeyquorumError, match=r"sealing\.key cannot be written"):
        sealing_key.make(FILE, "", around)
    assert made.public


def test_files_that_are_none(around: Surroundings, tmp_path: Path) -> None:
    sealing_key.make(FILE, "", around)
    seed = tmp_path / "sealing.key"
    good = seed.read_bytes()
    for wrong in (good[:-1], good + b"\0", b""):
        seed.write_bytes(wrong)
        with pytest.raises(MalformedError, match="has not 32 bytes"):
            sealing_key.load(around)
    seed.write_bytes(bytes(32))
    with pytest.raises(KeyquorumError, match="another one than its public key"):
        sealing_key.load(around)
    seed.write_bytes(good)
    seed.chmod(0o640)
    with pytest.raises(MalformedError, match="readable by others"):
        sealing_key.load(around)
    seed.unlink()
    with pytest.raises(KeyquorumError, match="cannot be read"):
        sealing_key.load(around)
    (tmp_path / "sealing.json").write_bytes(b"{}")
    with pytest.raises(MalformedError):
        sealing_key.load(around)
