# SPDX-License-Identifier: Apache-2.0
"""Platform facts are measured before the TPM is asked, and a change is refused and named (docs/holders-tpm.md §6)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.tpm_emulator import Emulator
from devices.tpm_support import Enrolment, Person, extend, pcr, signing_key
from keyquorum.errors import RefusedError, UnavailableError, UsageError
from keyquorum.holders import tpm_facts
from keyquorum.linux import platform_facts
from keyquorum.model.holder_options import FACTS, TpmOptions


class Machine:
    """The tables that a kernel shows of a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/class/dmi/id").mkdir(parents=True)
        (root / "proc").mkdir()
        self.bios("1.14.0")
        self.cpu("Example CPU @ 2.00GHz")

    def bios(self, version: str) -> None:
        (self.root / "sys/class/dmi/id/bios_version").write_text(version + "\n")

    def cpu(self, model: str) -> None:
        (self.root / "proc/cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {model}\n")


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "root")
    monkeypatch.setattr(platform_facts, "_ROOT", str(made.root))
    monkeypatch.setattr(tpm_facts, "LOCK", str(tmp_path / "run" / "facts.lock"))
    return made


def enrol(tpm: Emulator, tmp_path: Path, typed: bytes = b"", **options: Any) -> Enrolment:
    return Enrolment(tpm.device, str(tmp_path / "reference"), TpmOptions(**{"facts": FACTS, **options}), typed)


def test_facts_are_measured_once_in_every_bank(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    text = b"keyquorum/v1/facts\x00bios-version=1.14.0\x00cpu-model=Example CPU @ 2.00GHz"
    for _ in range(2):
        for bank, size in (("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)):
            measured = hashlib.new(bank, bytes(size) + hashlib.new(bank, text).digest()).digest()
            assert pcr(tpm.device, 13, bank) == measured
        assert enrolment.opens()
    tpm.restart()
    assert pcr(tpm.device, 13) == bytes(32)
    assert enrolment.opens(), "the first unlock of a boot measures"


def test_a_changed_fact_is_refused_and_named(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    machine.bios("1.15.2")
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message == "the BIOS version changed: enrolled '1.14.0', now '1.15.2'"
    assert not caught.value.tampered
    tpm.restart()
    machine.bios("1.14.0")
    machine.cpu("Another CPU")
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message == "the CPU model changed: enrolled 'Example CPU @ 2.00GHz', now 'Another CPU'"
    tpm.restart()
    machine.cpu("Example CPU @ 2.00GHz")
    assert enrolment.opens()


def test_the_tpm_itself_refuses_other_facts(
    tpm: Emulator, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nothing of ours compares or measures, the PCR does not say what it said at enrolment."""
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    monkeypatch.setattr(tpm_facts, "measure_enrolled", lambda *_: None)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "PCR 13 (BIOS version and CPU model, as keyquorum measures them) differs" in caught.value.message
    monkeypatch.undo()


def test_facts_cannot_be_told_otherwise_later(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    machine.bios("1.15.2")
    with pytest.raises(RefusedError):
        enrolment.open()
    machine.bios("1.14.0")
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "neither zero nor what the facts of this machine give" in caught.value.message


def test_facts_in_where_cannot_be_replaced(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    machine.bios("1.15.2")
    with pytest.raises(RefusedError) as caught:
        enrolment.open(where={**enrolment.where, "facts": {**enrolment.where["facts"], "bios-version": "1.15.2"}})
    assert caught.value.tampered, "the sealed object is not under that policy"


def test_a_fact_that_cannot_be_read_any_more_is_named(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    (machine.root / "sys/class/dmi/id/bios_version").unlink()
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message == "the BIOS version changed: enrolled '1.14.0', now ''"


def test_only_the_facts_asked_for_count(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path, facts=("cpu-model",))
    tpm.restart()
    machine.bios("9.9")
    assert enrolment.opens()


def test_volumes_with_the_same_facts_share_a_pcr(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    first, second = enrol(tpm, tmp_path, pcrs=(7,)), enrol(tpm, tmp_path, bank="sha384")
    tpm.restart()
    assert first.opens()
    assert second.opens()
    assert first.opens()


def test_volumes_with_other_facts_clash_at_enrolment(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    first = enrol(tpm, tmp_path)
    with pytest.raises(RefusedError) as caught:
        enrol(tpm, tmp_path, facts=("cpu-model",))
    assert "something else measures into it" in caught.value.message
    assert "choose another facts_pcr" in caught.value.hint
    second = enrol(tpm, tmp_path, facts=("cpu-model",), facts_pcr=14)
    tpm.restart()
    assert second.opens()
    assert first.opens()


def test_a_pcr_in_use_is_refused(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    tpm.restart()
    extend(tpm.device, 13)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message.startswith("PCR 13 holds ")
    with pytest.raises(RefusedError):
        enrol(tpm, tmp_path)


def test_something_else_measured_after_the_facts_is_refused(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    extend(tpm.device, 13)
    with pytest.raises(RefusedError):
        enrolment.open()


def test_changed_facts_are_named_before_anybody_types_a_pin(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path, b"1234", pin=True)
    tpm.restart()
    machine.bios("1.15.2")
    person = Person(b"1234")
    with pytest.raises(RefusedError) as caught:
        enrolment.open(person=person)
    assert "BIOS version" in caught.value.message
    assert person.asked == []


def test_nobody_can_sign_what_keyquorum_measures(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(signing_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(UsageError) as caught:
        enrol(tpm, tmp_path, signed_pcrs=(11, 13), public_key=str(key))
    assert "facts_pcr 13 is among signed_pcrs" in caught.value.message


def test_a_machine_that_tells_no_fact_is_told_at_enrolment(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    machine.bios("")
    with pytest.raises(UsageError) as caught:
        enrol(tpm, tmp_path)
    assert "does not tell its bios-version" in caught.value.message
    assert pcr(tpm.device, 13) == bytes(32), "nothing was measured"
    assert enrol(tpm, tmp_path, facts=("cpu-model",)).opens()


def test_unlocks_side_by_side_measure_once(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolments = [enrol(tpm, tmp_path) for _ in range(4)]
    tpm.restart()
    opened: list[bool] = []
    threads = [threading.Thread(target=lambda e=e: opened.append(e.opens())) for e in enrolments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert opened == [True] * 4


def test_the_lock_costs_its_deadline_and_no_more(tpm: Emulator, tmp_path: Path, machine: Machine) -> None:
    enrolment = enrol(tpm, tmp_path)
    descriptor = os.open(tpm_facts.LOCK, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        started = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            enrolment.open(patience=3)
        assert time.monotonic() - started < 30
        assert "cannot be locked" in caught.value.message
    finally:
        os.close(descriptor)
    assert enrolment.opens()
