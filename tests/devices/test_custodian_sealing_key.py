# SPDX-License-Identifier: Apache-2.0
"""The sealing key of a custodian in a TPM and on a token: there again after a restart, gone without the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devices.tokens import PIN, SoftHsm
from devices.tpm_emulator import Emulator
from keyquorum.custodian import sealing_key
from keyquorum.custodian.sealing_key import TOKEN, TPM, Surroundings
from keyquorum.errors import KeyquorumError, UnavailableError
from keyquorum.holders.contract import Tuning
from keyquorum.linux.answers import LocalAnswers

ORIGIN = "custodian.example/paris"


def around(directory: Path, **tuning: Any) -> Surroundings:
    credentials = directory / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "keyquorum.sealing-key").write_text(PIN)
    answers = LocalAnswers(credentials=str(credentials), descriptors={}, prompt=None, seconds=5, keep=True)
    return Surroundings(path=str(directory / "sealing.json"), origin=ORIGIN, answers=answers, tuning=Tuning(**tuning))


def test_a_tpm_keeps_it(tmp_path: Path) -> None:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        here = around(tmp_path, tpm_device=emulator.device)
        made = sealing_key.make(TPM, "", here)
        emulator.restart()
        loaded = sealing_key.load(here)
        assert loaded.public == made.public
        assert not (tmp_path / "sealing.key").exists()
    with Emulator(str(tmp_path / "another")) as another, pytest.raises(KeyquorumError, match="another TPM"):
        sealing_key.load(around(tmp_path, tpm_device=another.device))


def test_a_token_keeps_it(tmp_path: Path) -> None:
    hsm = SoftHsm(tmp_path)
    token = hsm.add_token()
    token.make_key("EC:secp256r1")
    here = around(tmp_path, pkcs11_modules=("/usr/lib/softhsm/libsofthsm2.so",))
    made = sealing_key.make(TOKEN, f"pkcs11:token={token.label};object=kq", here)
    assert sealing_key.load(here).public == made.public
    assert not (tmp_path / "sealing.key").exists()
    hsm.remove_token(token)
    with pytest.raises(UnavailableError, match="no token"):
        sealing_key.load(here)
