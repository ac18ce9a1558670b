# SPDX-License-Identifier: Apache-2.0
"""PINs: asked for only when they can help, checked by the TPM, counted by its lockout (docs/holders-tpm.md §3.4)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.tpm_emulator import Emulator
from devices.tpm_support import LOCKOUT, Enrolment, Person, extend, second_opinion
from keyquorum.errors import RefusedError, UnavailableError, UsageError
from keyquorum.holders.tpm import HOLDER
from keyquorum.holders.tpm_pin import pin_value
from keyquorum.model.holder_options import TpmOptions
from keyquorum.secret import Secret


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


def enrol(tpm: Emulator, tmp_path: Path, typed: bytes = b"", **options: Any) -> Enrolment:
    return Enrolment(tpm.device, str(tmp_path / "reference"), TpmOptions(**options), typed)


def test_a_pin_is_asked_for_and_checked_by_the_tpm(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, b"correct horse", pcrs=(7,), pin=True)
    assert HOLDER.needs_person(enrolment.where)
    person = Person(b"correct horse")
    assert enrolment.opens(person=person)
    assert person.asked == ["PIN of the TPM for tpm"]
    for count, wrong in enumerate((b"correct horsf", b"", b"correct horse\x00"), 1):
        with pytest.raises(RefusedError) as caught:
            enrolment.open(wrong)
        assert caught.value.message == "the PIN is wrong"
        assert caught.value.hint.startswith(f"{count} of 3 wrong PINs are counted before the TPM locks itself")
        assert not caught.value.tampered


def test_lockout_is_said_and_nobody_is_asked(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, b"1234", pin=True)
    for _ in range(3):  # the emulator's limit
        with pytest.raises(RefusedError):
            enrolment.open(b"wrong")
    person = Person(b"1234")
    with pytest.raises(UnavailableError) as caught:
        enrolment.open(person=person)
    assert caught.value.message == "the TPM is locked out after 3 wrong PINs"
    assert "it takes one back every 1000 seconds" in caught.value.hint
    assert "tpm2_dictionarylockout" in caught.value.hint
    assert person.asked == []
    with second_opinion(tpm.device) as tss:
        tss.dictionary_attack_lock_reset(LOCKOUT)
    assert enrolment.opens(b"1234")


def test_a_fragment_without_a_pin_opens_during_lockout(tpm: Emulator, tmp_path: Path) -> None:
    without, with_pin = enrol(tpm, tmp_path, pcrs=(7,)), enrol(tpm, tmp_path, b"1234", pin=True)
    for _ in range(3):
        with pytest.raises(RefusedError):
            with_pin.open(b"wrong")
    assert without.opens()


def test_nobody_is_asked_for_a_pin_that_would_not_help(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, b"1234", pcrs=(7,), pin=True)
    extend(tpm.device, 7)
    person = Person(b"1234")
    with pytest.raises(RefusedError) as caught:
        enrolment.open(person=person)
    assert "PCR 7" in caught.value.message
    assert person.asked == []


def test_an_empty_pin_is_refused_at_enrolment(tpm: Emulator, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        enrol(tpm, tmp_path, b"", pin=True)


def test_a_pin_whose_value_ends_in_a_zero_works(tpm: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TPM cuts trailing zeros from authorisation values; one PIN in 256 would otherwise never open."""
    salt = (401).to_bytes(16, "big")
    with Secret.from_view(b"1234") as pin, pin_value(pin, salt) as value:
        assert value.size == 31
    monkeypatch.setattr(
        "keyquorum.holders.tpm_enrolment.os.urandom", lambda size: salt if size == 16 else os.getrandom(size)
    )
    enrolment = enrol(tpm, tmp_path, b"1234", pin=True)
    monkeypatch.undo()
    assert base64.b64decode(enrolment.where["pin"]) == salt
    assert enrolment.opens(b"1234")


def test_a_pin_cannot_be_taken_away(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, b"1234", pin=True)
    with pytest.raises(RefusedError):
        enrolment.open(where={name: value for name, value in enrolment.where.items() if name != "pin"})
