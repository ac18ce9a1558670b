# SPDX-License-Identifier: Apache-2.0
"""Renewing at several custodians, some of them hostile; and that nobody who writes meanwhile is undone."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian import authority
from keyquorum.enroll import machine as enrolling
from keyquorum.enroll import machine_file
from keyquorum.enroll import renew as renewing
from keyquorum.errors import KeyquorumError, TamperingError
from keyquorum.holders import machine_keys
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.linux import atomic_file
from keyquorum.model import enrolment_messages
from keyquorum.model.machine_identity import MachineIdentity
from unit.custodian.notes import private
from unit.custodian.test_enrolling import spki
from unit.model.test_machine_identity import KNOWN

KEY = spki(private(61))
YEAR = 365 * 86400
ED25519, UNKNOWN = b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x7f"  # object identifiers
VERSIONS = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"  # the third, and one that there is not


def certificate(years_ago: int = 0) -> bytes:
    then = int(time.time()) - years_ago * YEAR
    own = authority.found("eu-1.example", then)
    return own.issue_client(KEY, "db-1", {}, then).public_bytes(Encoding.DER)


FRESH = certificate()


def given(data: bytes) -> Any:
    return SimpleNamespace(certificate=data)


class Fleet:
    """A machine with an old certificate at two custodians, which answer what a test says."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self.answers, self.asked = str(directory / "machine.json"), dict[str, Any](), list[str]()
        old = KNOWN.with_(chain=(certificate(5),))
        known = MachineIdentity(key={"version": 1}, attestation=("ecc", bytes(32)))
        self.before = known.knowing("a.example", old).knowing("b.example", old)
        Path(self.path).write_bytes(self.before.to_json())
        self.machine: Any = SimpleNamespace(tuning=SimpleNamespace(machine=self.path), answers=None)
        patch.setattr(machine_keys, "sign", lambda *_: bytes(64))
        patch.setattr(renewing, "ask_without_certificate", self._ask)
        patch.setattr(enrolment_messages, "parse_certificate", lambda answer, *_: given(answer))

    def _ask(self, where: Any, *_: Any) -> bytes:
        self.asked.append(where.custodian)
        answer = self.answers.get(where.custodian, FRESH)
        if isinstance(answer, bytes):
            return answer
        found: bytes = answer()
        return found

    def renew(self) -> tuple[tuple[str, ...], list[str]]:
        renewed, problems = renewing.renew_machine(self.machine)
        return renewed, [problem.message for problem in problems]

    def shown(self, name: str) -> bytes:
        known = load_identity(self.path).custodian(name)
        assert known is not None
        return known.chain[0]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(tmp_path, monkeypatch)


@pytest.mark.parametrize(("known", "odd"), [(ED25519, UNKNOWN), VERSIONS])
def test_a_certificate_of_another_kind_costs_the_others_nothing(fleet: Fleet, known: bytes, odd: bytes) -> None:
    assert FRESH.count(known) == 1
    fleet.answers["a.example"] = FRESH.replace(known, odd)
    renewed, (problem,) = fleet.renew()
    assert renewed == ("b.example",)
    assert "with a key that is known here" in problem
    assert fleet.shown("b.example") == FRESH


def test_neither_does_anything_else_that_goes_wrong_at_one(fleet: Fleet) -> None:
    def fail() -> bytes:
        raise KeyquorumError("OpenSSL does not take the custodian's authority")

    fleet.answers["a.example"] = fail
    assert fleet.renew() == (("b.example",), ["OpenSSL does not take the custodian's authority"])


@pytest.mark.parametrize("years", [7, 4])
def test_a_certificate_that_is_over_or_due_is_refused(years: int) -> None:
    with pytest.raises(TamperingError, match="certificate: is over or due"):
        enrolling.checked_certificate(given(certificate(years)), KEY)
    assert enrolling.checked_certificate(given(certificate(1)), KEY) > time.time()


def test_the_old_one_stays_then_and_no_image_is_due(fleet: Fleet) -> None:
    fleet.answers = dict.fromkeys(("a.example", "b.example"), certificate(7))
    assert fleet.renew()[0] == ()
    assert load_identity(fleet.path) == fleet.before
    assert not machine_file.image_due(fleet.path)


def test_the_image_is_due_before_the_file_says_something_new(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(path: str, _data: bytes) -> None:
        assert path == fleet.path
        raise KeyquorumError("the disk is full")

    monkeypatch.setattr(atomic_file, "write", lambda path, data: power_cut(path, data) if data else touch(path))
    assert fleet.renew()[1] == ["the disk is full"] * 2
    assert machine_file.image_due(fleet.path)


def touch(path: str) -> None:
    Path(path).touch()


def test_who_enrols_meanwhile_waits_and_is_not_undone(fleet: Fleet) -> None:
    begun, another = threading.Event(), KNOWN.with_(machine="web-9")

    def enrol() -> None:
        begun.set()
        with machine_file.alone(fleet.path):
            Path(fleet.path).write_bytes(load_identity(fleet.path).knowing("new.example", another).to_json())

    enroller = threading.Thread(target=enrol)

    def slow() -> bytes:
        enroller.start()
        assert begun.wait(20)
        return FRESH

    fleet.answers["a.example"] = slow
    assert fleet.renew() == (("a.example", "b.example"), [])
    enroller.join(20)
    assert load_identity(fleet.path).custodian("new.example") == another
    assert [fleet.shown(name) for name in ("a.example", "b.example")] == [FRESH, FRESH]


def test_enrolling_takes_its_turn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its custodian is asked nobody else may have the file; its directory may be missing at first."""
    path, taken = tmp_path / "new" / "machine.json", list[bool]()

    def keys(_machine: Any) -> Any:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken.append(True)
        finally:
            os.close(descriptor)
        raise KeyquorumError("seen")

    monkeypatch.setattr(enrolling, "_keys", keys)
    machine: Any = SimpleNamespace(tuning=SimpleNamespace(machine=str(path)))
    nobody: Any = None
    with pytest.raises(KeyquorumError, match="seen"):
        enrolling.enroll_machine(machine, nobody, nobody)
    assert taken == [True]
