# SPDX-License-Identifier: Apache-2.0
"""The holder `custodian` with a real TPM emulator, over real TLS: what opens, what does not, and in which words."""

from __future__ import annotations

import binascii
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.custodian_stand_in import MachineUnderTest, StandIn
from devices.holder_tasks import Given, open_task
from devices.tpm_emulator import Emulator
from devices.tpm_support import loaded
from keyquorum.envelope.signing import Owner
from keyquorum.errors import HolderError, KeyquorumError, RefusedError, UnavailableError
from keyquorum.holders import tpm as tpm_holder
from keyquorum.holders.custodian import HOLDER
from keyquorum.model import release_messages as messages
from keyquorum.model import strict_json
from keyquorum.model.release_messages import Denied, Waiting
from unit.linux.tls_authority import Authority
from unit.unlock.scene import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDENTITY = bytes(range(32))
VOLUME = "6f1c5a3e-8f0e-4b2f-9d7a-2a4c1b0e9d11"  # of devices.holder_tasks


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


@pytest.fixture
def machine(tpm: Emulator, tmp_path: Path) -> MachineUnderTest:
    return MachineUnderTest(tpm.device, str(tmp_path))


@pytest.fixture
def custodian(machine: MachineUnderTest, tmp_path: Path) -> Iterator[StandIn]:
    before = free_memory()
    with StandIn(str(tmp_path)) as made:
        made.deposits[VOLUME, 2] = IDENTITY
        machine.enrol(made)
        yield made
    assert free_memory() == before, "secrets were left behind"


def opened(machine: MachineUnderTest, custodian: StandIn, seconds: float = 20.0, **changes: Any) -> bytes:
    where = custodian.where(**changes).to_json()
    with HOLDER.open(open_task(where, Given(), machine.tuning, seconds)).identity as identity:
        return bytes(identity.view)


def refused(machine: MachineUnderTest, custodian: StandIn, **changes: Any) -> HolderError:
    with pytest.raises(HolderError) as caught:
        opened(machine, custodian, **changes)
    return caught.value


def test_it_opens(machine: MachineUnderTest, custodian: StandIn, tpm: Emulator) -> None:
    assert opened(machine, custodian) == IDENTITY
    assert [path for path, _ in custodian.requests] == ["/v1/challenge", "/v1/release"]
    assert custodian.server.accepted == 1
    assert loaded(tpm.device) == []


def test_it_opens_again_after_a_restart(machine: MachineUnderTest, custodian: StandIn, tpm: Emulator) -> None:
    opened(machine, custodian)
    tpm.restart()
    assert opened(machine, custodian) == IDENTITY


def test_nothing_that_is_sent_has_the_identity(machine: MachineUnderTest, custodian: StandIn) -> None:
    opened(machine, custodian)
    sent = b"".join(body for _, body in custodian.requests)
    assert strict_json.to_base64(IDENTITY)[:20].encode() not in sent
    assert IDENTITY.hex().encode() not in sent


def answering(custodian: StandIn, path: str, change: Callable[[int, bytes], tuple[int, bytes]]) -> None:
    honest = custodian.answers[path]
    custodian.answers[path] = lambda body: change(*honest(body))


def table_of(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = strict_json.parse(body, "x", 1 << 20, KeyquorumError)  # type: ignore[arg-type]
    return found


TAMPERED: dict[str, tuple[str, Callable[[StandIn], Callable[[int, bytes], tuple[int, bytes]]], str]] = {
    "no json": ("/v1/challenge", lambda _c: lambda status, _body: (status, b"hello"), "JSON"),
    "empty": ("/v1/challenge", lambda _c: lambda status, _body: (status, b""), "answer"),
    "of another key": (
        "/v1/challenge",
        lambda _c: lambda status, body: (status, resigned(body, messages.CHALLENGE_TYPE)),
        "signed by",
    ),
    "an answer of another key": (
        "/v1/release",
        lambda _c: lambda status, body: (status, resigned(body, messages.ANSWER_TYPE)),
        "signed by",
    ),
    "an altered signature": ("/v1/release", lambda _c: lambda status, body: (status, altered(body)), "does not match"),
    "a challenge for an answer": ("/v1/release", lambda c: lambda s, _b: (s, old_challenge(c)), "payloadType"),
    "status and answer differ": ("/v1/release", lambda _c: lambda _status, body: (202, body), "status 202"),
    "an answer to another question": (
        "/v1/release",
        lambda c: lambda _s, _b: (403, denial(c, bytes(32))),
        "is another one than was asked",
    ),
}


def resigned(body: bytes, kind: str) -> bytes:
    envelope, _ = messages.parse_answer_body(body)
    return messages.answer_body(
        Owner(Ed25519PrivateKey.generate()).sign(kind, binascii.a2b_base64(envelope["payload"]))
    )


def altered(body: bytes) -> bytes:
    envelope, _ = messages.parse_answer_body(body)
    signature = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
    return messages.answer_body(envelope)


def old_challenge(custodian: StandIn) -> bytes:
    return custodian.challenge(custodian.requests[0][1])[1]


def denial(custodian: StandIn, question: bytes) -> bytes:
    denied = Denied(question=question, number=1, check="hours", expected="day", actual="night")
    return custodian.signed(messages.ANSWER_TYPE, messages.answer_payload(denied))


@pytest.mark.parametrize("name", TAMPERED)
def test_a_custodian_that_lies(name: str, machine: MachineUnderTest, custodian: StandIn) -> None:
    path, change, words = TAMPERED[name]
    answering(custodian, path, change(custodian))
    error = refused(machine, custodian)
    assert isinstance(error, RefusedError)
    assert error.tampered, error
    assert words in error.message


def test_a_challenge_for_another_fragment_is_refused(machine: MachineUnderTest, custodian: StandIn) -> None:
    other = messages.parse_challenge_request
    custodian.answers["/v1/challenge"] = lambda body: custodian.challenge(
        messages.challenge_request(other(body).with_(index=3))
    )
    assert "another fragment" in refused(machine, custodian).message


def test_an_answer_sealed_to_another_key_opens_nothing(machine: MachineUnderTest, custodian: StandIn) -> None:
    custodian.deposits[VOLUME, 2] = bytes(31)
    assert "31 bytes" in refused(machine, custodian).message

    def sealed_to_another(body: bytes) -> tuple[int, bytes]:
        request = messages.parse_release_request(body)
        question = custodian.question(request)
        made = messages.Released(question=question, number=1, enc=bytes([9] * 32), ciphertext=bytes(48))
        return 200, custodian.signed(messages.ANSWER_TYPE, messages.answer_payload(made))

    custodian.answers["/v1/release"] = sealed_to_another
    error = refused(machine, custodian)
    assert isinstance(error, RefusedError)
    assert error.tampered
    assert "does not open" in error.message


def test_a_denial_is_shown_with_its_check(machine: MachineUnderTest, custodian: StandIn) -> None:
    def deny(body: bytes) -> tuple[int, bytes]:
        return 403, denial(custodian, custodian.question(messages.parse_release_request(body)))

    custodian.answers["/v1/release"] = deny
    error = refused(machine, custodian)
    assert isinstance(error, RefusedError)
    assert not error.tampered
    assert error.message == f"{custodian.name} denies it: hours: expected day, found night"
    assert "entry 1" in error.hint


def test_waiting_for_a_person_has_a_number_and_a_time(machine: MachineUnderTest, custodian: StandIn) -> None:
    def wait(body: bytes) -> tuple[int, bytes]:
        question = custodian.question(messages.parse_release_request(body))
        waiting = Waiting(question=question, number=42, retry_after=15)
        return 202, custodian.signed(messages.ANSWER_TYPE, messages.answer_payload(waiting))

    custodian.answers["/v1/release"] = wait
    error = refused(machine, custodian)
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 15
    assert "request 42" in error.message
    assert "keyquorum custodian approve 42" in error.hint


@pytest.mark.parametrize(("status", "words"), [(429, "enough requests"), (503, "not ready")])
@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/release"])
def test_a_pause_is_kept(path: str, status: int, words: str, machine: MachineUnderTest, custodian: StandIn) -> None:
    custodian.headers = "Retry-After: 90\r\n"
    answering(custodian, path, lambda _status, _body: (status, b'{"problem":"too many challenges"}'))
    error = refused(machine, custodian)
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 90
    assert words in error.message
    assert "too many challenges" in error.message


@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/release"])
def test_no_to_this_machine(path: str, machine: MachineUnderTest, custodian: StandIn) -> None:
    answering(custodian, path, lambda _status, _body: (403, b'{"problem":"web-1 was revoked"}'))
    error = refused(machine, custodian)
    assert isinstance(error, RefusedError)
    assert not error.tampered
    assert "web-1 was revoked" in error.message


@pytest.mark.parametrize("status", [204, 301, 400, 404, 500])
def test_other_statuses_are_unavailable(status: int, machine: MachineUnderTest, custodian: StandIn) -> None:
    answering(custodian, "/v1/challenge", lambda _status, _body: (status, b""))
    error = refused(machine, custodian)
    assert isinstance(error, UnavailableError)
    assert str(status) in error.message


def test_a_quote_of_another_machine_is_denied(machine: MachineUnderTest, custodian: StandIn, tmp_path: Path) -> None:
    with Emulator(str(tmp_path / "another")) as other:
        custodian.attestation_key = MachineUnderTest(other.device, str(tmp_path)).keys.attested.ak
    assert "expected trusted, found untrusted" in refused(machine, custodian).message


def test_another_tpm_cannot_speak_for_the_machine(
    machine: MachineUnderTest, custodian: StandIn, tmp_path: Path
) -> None:
    with Emulator(str(tmp_path / "another")) as other:
        machine.tuning = machine.tuning.with_(tpm_device=other.device)
        error = refused(machine, custodian)
    assert isinstance(error, RefusedError)
    assert error.message.startswith("this machine's key for custodians: this is another TPM")
    assert custodian.server.accepted == 0


def test_a_machine_that_was_never_enrolled(machine: MachineUnderTest, custodian: StandIn) -> None:
    machine.identity = machine.identity.with_(custodians=())
    machine.write()
    assert "is not enrolled at" in refused(machine, custodian).message
    os.unlink(machine.tuning.machine)
    error = refused(machine, custodian)
    assert isinstance(error, UnavailableError)
    assert "enrolled at no custodian" in error.message


@pytest.mark.parametrize("data", [b"{}", b"x", b'{"version":2}', b"[]", b"\xff" * 100])
def test_a_damaged_identity_is_said(data: bytes, machine: MachineUnderTest, custodian: StandIn) -> None:
    with open(machine.tuning.machine, "wb") as file:
        file.write(data)
    assert machine.tuning.machine in refused(machine, custodian).message


def test_an_impostor_is_not_asked(machine: MachineUnderTest, custodian: StandIn) -> None:
    error = refused(machine, custodian, authority=Authority().der)
    assert isinstance(error, UnavailableError), "the true one may come later"
    assert "who answers is not" in error.message
    assert custodian.requests == []


@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/release"])
def test_silence_costs_its_deadline(path: str, machine: MachineUnderTest, custodian: StandIn) -> None:
    def silent(_body: bytes) -> tuple[int, bytes]:
        custodian.ended.wait(30)
        return 200, b""

    custodian.answers[path] = silent
    begun = time.monotonic()
    error = refused(machine, custodian, seconds=6.0)
    custodian.ended.set()
    assert isinstance(error, UnavailableError)
    assert "in time" in error.message
    assert time.monotonic() - begun < 30


JUNK: dict[str, dict[str, Any]] = {
    "no version": {"version": None},
    "another version": {"version": 2},
    "a name with a slash": {"custodian": "eu/1"},
    "a short key": {"key": strict_json.to_base64(bytes(31))},
    "no address": {"addresses": []},
    "nine addresses": {"addresses": [f"a{i}:1" for i in range(9)]},
    "an address without port": {"addresses": ["a"]},
    "no PCR": {"pcrs": []},
    "PCRs out of order": {"pcrs": [7, 0]},
    "PCR 24": {"pcrs": [24]},
    "a bank": {"bank": "md5"},
    "something else": {"more": 1},
}


@pytest.mark.parametrize("name", JUNK)
def test_where_is_input(name: str, machine: MachineUnderTest, custodian: StandIn) -> None:
    where = custodian.where().to_json() | JUNK[name]
    with pytest.raises(RefusedError) as caught:
        HOLDER.open(open_task(where, Given(), machine.tuning))
    assert caught.value.tampered
    assert custodian.requests == []


def residue(mode: str, machine: MachineUnderTest, custodian: StandIn) -> list[int]:
    """How often the identity and the TLS key's seed are left in the memory of a process."""
    with tpm_holder.HOLDER.open(open_task(machine.identity.key, Given(), machine.tuning)).identity as seed:
        needles = custodian.deposits[VOLUME, 2] + bytes(seed.view)
    where = strict_json.serialise(custodian.where().to_json()).decode()
    script = Path(__file__).with_name("custodian_residue.py")
    words = [sys.executable, str(script), mode, machine.tuning.tpm_device, machine.tuning.machine, where]
    path = ":".join((str(script.parents[1]), *(p for p in sys.path if p)))
    done = subprocess.run(words, input=needles, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [int(word) for word in done.stdout.split()]


def test_nothing_is_left_in_ordinary_memory(machine: MachineUnderTest, custodian: StandIn) -> None:
    custodian.deposits[VOLUME, 2] = os.urandom(32)  # the usual one is also in tables of others
    assert residue("open", machine, custodian) == [0, 0]
    assert residue("planted", machine, custodian) == [1, 1], "the search finds what is there"
