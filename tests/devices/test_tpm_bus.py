# SPDX-License-Identifier: Apache-2.0
"""Somebody sits between us and the TPM: listens, flips bytes, replays, swaps, stays silent (docs/holders-tpm.md §3)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.tpm_emulator import Emulator, Proxy
from devices.tpm_support import Enrolment, tidy
from keyquorum.errors import HolderError, RefusedError, UnavailableError
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.model.holder_options import TpmOptions
from keyquorum.secret import Secret
from keyquorum.tpm2.wire import u16, u32

READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL = 0x173, 0x176, 0x17F, 0x157, 0x15E
HONEST = 30.0  # seconds for a TPM whose answers nobody changes
GET_RANDOM = u16(0x8001) + u32(12) + u32(0x17B) + u16(8)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


@pytest.fixture
def enrolment(tpm: Emulator, tmp_path: Path) -> Enrolment:
    return Enrolment(tpm.device, str(tmp_path), TpmOptions(pcrs=(7,)))


def code(command: bytes) -> int:
    return int.from_bytes(command[6:10], "big")


def test_five_commands_open(tpm: Emulator, enrolment: Enrolment) -> None:
    with Proxy(tpm) as proxy:
        assert enrolment.opens(device=proxy.device)
    sent = [code(command) for command in proxy.commands]
    assert sent[:5] == [READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL]
    assert sent[5:] == [0x165], "the object is flushed; the session ended itself"


@pytest.mark.parametrize("pin", [b"", b"1234"])
def test_a_listener_sees_neither_identity_nor_pin(tpm: Emulator, tmp_path: Path, pin: bytes) -> None:
    with Proxy(tpm) as proxy:
        enrolment = Enrolment(proxy.device, str(tmp_path), TpmOptions(pcrs=(7,), pin=bool(pin)), pin)
        assert enrolment.opens(pin)
    traffic = b"".join(proxy.commands + proxy.responses)
    assert len(traffic) > 1500
    for start in range(0, 32, 8):
        assert enrolment.raw[start : start + 8] not in traffic
    assert not pin or pin not in traffic


def test_the_same_opening_never_looks_the_same(tpm: Emulator, enrolment: Enrolment) -> None:
    seen = []
    for _ in range(2):
        with Proxy(tpm) as proxy:
            assert enrolment.opens(device=proxy.device)
        seen.append(
            [answer for sent, answer in zip(proxy.commands, proxy.responses, strict=True) if code(sent) == UNSEAL]
        )
    assert seen[0] != seen[1]
    assert seen[0][0][16:48] != seen[1][0][16:48], "the identity is encrypted under another key each time"


def attempt(enrolment: Enrolment, proxy: Proxy, patience: float = 0.25) -> bytes | None:
    """Open through the proxy; None when the holder said no in its own words. The TPM is tidy afterwards."""
    try:
        return enrolment.open(device=proxy.device, patience=patience)
    except HolderError as error:
        words = error.message + error.hint
    finally:
        tidy(enrolment.tuning.tpm_device)
    assert words
    assert enrolment.raw.hex() not in words
    return None


@pytest.mark.parametrize("target", [READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL])
def test_no_flipped_byte_of_an_answer_gives_a_wrong_identity(tpm: Emulator, enrolment: Enrolment, target: int) -> None:
    """Every byte of every answer, one at a time; a size that promises more makes a silent TPM."""
    with Proxy(tpm) as proxy:
        assert attempt(enrolment, proxy, HONEST) == enrolment.raw
        length = next(
            len(answer) for sent, answer in zip(proxy.commands, proxy.responses, strict=True) if code(sent) == target
        )
        outcomes = []
        for byte in [0, 1, *range(3, length)]:

            def flip(command: bytes, response: bytes, byte: int = byte) -> bytes:
                if code(command) != target or byte >= len(response):
                    return response
                return response[:byte] + bytes((response[byte] ^ 0x40,)) + response[byte + 1 :]

            proxy.change = flip
            outcomes.append(attempt(enrolment, proxy))
        proxy.change = lambda _command, response: response
        assert attempt(enrolment, proxy, HONEST) == enrolment.raw, "the TPM is as before"
    assert set(outcomes) <= {None, enrolment.raw}
    if target == UNSEAL:
        assert outcomes == [None] * len(outcomes), "every byte of this answer is bound"


@pytest.mark.parametrize("target", [START, POLICY_PCR, LOAD, UNSEAL])
def test_no_flipped_byte_of_a_command_gives_a_wrong_identity(tpm: Emulator, enrolment: Enrolment, target: int) -> None:
    with Proxy(tpm) as proxy:
        assert attempt(enrolment, proxy, HONEST) == enrolment.raw
        length = next(len(sent) for sent in proxy.commands if code(sent) == target)
        outcomes = []
        for byte in range(10, length):

            def flip(command: bytes, byte: int = byte) -> bytes:
                if code(command) != target or byte >= len(command):
                    return command
                return command[:byte] + bytes((command[byte] ^ 0x01,)) + command[byte + 1 :]

            proxy.before = flip
            outcomes.append(attempt(enrolment, proxy))
    assert set(outcomes) <= {None, enrolment.raw}
    if target == UNSEAL:
        assert enrolment.raw not in outcomes


@pytest.mark.parametrize("target", [READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL])
def test_a_cut_answer_is_no_answer(tpm: Emulator, enrolment: Enrolment, target: int) -> None:
    with Proxy(tpm) as proxy:
        for size in (0, 1, 9, 10, 11, 14, 30):

            def cut(command: bytes, response: bytes, size: int = size) -> bytes | None:
                if code(command) != target:
                    return response
                shorter = response[:size]
                return shorter[:2] + u32(len(shorter)) + shorter[6:] if size >= 10 else shorter or None

            proxy.change = cut
            if not (target == POLICY_PCR and size >= 10):  # its whole answer has 10 bytes
                assert attempt(enrolment, proxy) is None


def test_a_recorded_answer_is_refused(tpm: Emulator, enrolment: Enrolment) -> None:
    with Proxy(tpm) as proxy:
        assert enrolment.opens(device=proxy.device)
        proxy.commands, proxy.responses = proxy.commands[:5], proxy.responses[:5]
        recorded = dict(zip(map(code, proxy.commands), proxy.responses, strict=True))
        for replayed in ({UNSEAL}, {START, UNSEAL}, {READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL}):
            proxy.change = lambda command, response, replayed=replayed: (  # type: ignore[misc]  # mypy infers no lambda defaults
                recorded[code(command)] if code(command) in replayed else response
            )
            with pytest.raises(RefusedError) as caught:
                enrolment.open(device=proxy.device)
            assert caught.value.tampered
            assert "altered on its way" in caught.value.message
            tidy(tpm.device)


def test_another_object_cannot_be_put_in_its_place(tpm: Emulator, enrolment: Enrolment, tmp_path: Path) -> None:
    """The interposer has the same TPM seal what it likes under the same policy, and loads that instead."""
    other = Enrolment(tpm.device, str(tmp_path), TpmOptions(pcrs=(7,)))
    with Proxy(tpm) as proxy:
        assert other.opens(device=proxy.device)
        foreign = next(sent for sent in proxy.commands if code(sent) == LOAD)
        proxy.before = lambda command: foreign if code(command) == LOAD else command
        with pytest.raises(RefusedError) as caught:
            enrolment.open(device=proxy.device)
    assert caught.value.tampered
    assert "another command than was sent" in caught.value.message


def test_another_storage_key_cannot_be_put_in_its_place(tpm: Emulator, enrolment: Enrolment, tmp_path: Path) -> None:
    """A false TPM answers in front of the real one: it has no key to which we would salt a session."""
    with Emulator(str(tmp_path / "false")) as false:
        Enrolment(false.device, str(tmp_path), TpmOptions())
        with Proxy(false) as proxy:
            with pytest.raises(RefusedError) as caught:
                enrolment.open(device=proxy.device)
            assert "another TPM" in caught.value.message
            honest = Proxy(tpm)
            with honest:
                assert enrolment.opens(device=honest.device)
            public = next(
                answer
                for sent, answer in zip(honest.commands, honest.responses, strict=True)
                if code(sent) == READ_PUBLIC
            )
            proxy.change = lambda command, response: public if code(command) == READ_PUBLIC else response
            with pytest.raises(RefusedError):
                enrolment.open(device=proxy.device)


def test_no_flipped_byte_of_what_was_created_is_taken(tpm: Emulator, tmp_path: Path) -> None:
    """An enrolment notices at once, and not at the next boot."""
    with Proxy(tpm) as proxy:
        Enrolment(proxy.device, str(tmp_path), TpmOptions(pcrs=(7,)))
        length = next(
            len(answer) for sent, answer in zip(proxy.commands, proxy.responses, strict=True) if code(sent) == 0x153
        )
        for byte in range(10, length, 11):

            def flip(command: bytes, response: bytes, byte: int = byte) -> bytes:
                if code(command) != 0x153:
                    return response
                return response[:byte] + bytes((response[byte] ^ 0x01,)) + response[byte + 1 :]

            proxy.change = flip
            with pytest.raises(RefusedError) as caught:
                Enrolment(proxy.device, str(tmp_path), TpmOptions(pcrs=(7,)))
            assert caught.value.tampered
            tidy(tpm.device)


def test_errors_that_an_interposer_invents_stay_errors(tpm: Emulator, enrolment: Enrolment) -> None:
    with Proxy(tpm) as proxy:
        for target in (READ_PUBLIC, START, POLICY_PCR, LOAD, UNSEAL):
            for invented in (0x101, 0x128, 0x921, 0x98E, 0x99D, 0x1C4, 0x18B, 0x143, 0xFFFFFFFF):
                error = u16(0x8001) + u32(10) + u32(invented)

                def invent(command: bytes, response: bytes, error: bytes = error, target: int = target) -> bytes:
                    return error if code(command) == target else response

                proxy.change = invent
                assert attempt(enrolment, proxy) is None or invented == 0x18B


def test_a_pcr_that_changes_in_between_is_tried_once_more(tpm: Emulator, enrolment: Enrolment) -> None:
    """PCR 8 is not bound; extending it makes the TPM doubt the policy session all the same."""
    measured = u32(1) + u16(0x0B) + bytes(32)
    body = u32(8) + u32(9) + bytes.fromhex("40000009 0000 00 0000") + measured
    extend = u16(0x8002) + u32(10 + len(body)) + u32(0x182) + body
    with Proxy(tpm) as proxy:
        left = 1

        def disturb(command: bytes) -> bytes:
            nonlocal left
            if code(command) == UNSEAL and left:
                left -= 1
                assert int.from_bytes(proxy.ask(extend)[6:10], "big") == 0
            return command

        proxy.before = disturb
        assert enrolment.opens(device=proxy.device)
        assert [code(sent) for sent in proxy.commands].count(UNSEAL) == 2
        left = 2
        with pytest.raises(RefusedError) as caught:
            enrolment.open(device=proxy.device)
        assert "a PCR changed in between" in caught.value.message


def test_a_silent_tpm_costs_its_deadline_and_no_more(tpm: Emulator, enrolment: Enrolment) -> None:
    for target in (READ_PUBLIC, START, UNSEAL):
        with Proxy(tpm) as proxy:
            proxy.change = lambda command, response, target=target: None if code(command) == target else response  # type: ignore[misc]  # mypy infers no lambda defaults
            started = time.monotonic()
            with pytest.raises(UnavailableError) as caught:
                enrolment.open(device=proxy.device, patience=0.4)
            assert 0.35 < time.monotonic() - started < 30
            assert caught.value.message.endswith("does not answer")


def test_a_tpm_that_only_takes_the_connection_costs_its_deadline(enrolment: Enrolment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            enrolment.open(device=f"swtpm:host=127.0.0.1,port={server.getsockname()[1]}", patience=0.3)
        assert time.monotonic() - started < 30


def test_an_answer_in_small_pieces_is_put_together(tpm: Emulator, enrolment: Enrolment) -> None:
    def dribble(server: socket.socket) -> None:
        user, _ = server.accept()
        with user, socket.create_connection(("127.0.0.1", tpm.port)) as chip:
            while command := user.recv(4096):
                chip.sendall(command)
                for byte in chip.recv(4096):
                    user.sendall(bytes((byte,)))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=dribble, args=(server,), daemon=True).start()
        assert enrolment.opens(device=f"swtpm:host=127.0.0.1,port={server.getsockname()[1]}")


@pytest.mark.parametrize(
    "answer",
    [u16(0x8001) + u32(0xFFFFFFFF) + u32(0), u16(0x8001) + u32(5000) + u32(0) + bytes(6000), b""],
    ids=["promises 4 GiB", "gives more than fits", "hangs up"],
)
def test_an_answer_larger_than_a_tpm_gives_is_refused(answer: bytes) -> None:
    def talk(server: socket.socket) -> None:
        user, _ = server.accept()
        with user:
            user.recv(4096)
            user.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server, Secret(4096) as response:
        threading.Thread(target=talk, args=(server,), daemon=True).start()
        name = f"swtpm:host=127.0.0.1,port={server.getsockname()[1]}"
        with TpmDevice(name, time.monotonic() + 1) as device, pytest.raises(UnavailableError):
            device.transmit(GET_RANDOM, response)


def test_a_device_is_not_asked_again_after_its_deadline(tpm: Emulator) -> None:
    with Proxy(tpm, lambda _command, _response: None) as proxy, Secret(4096) as response:
        with TpmDevice(proxy.device, time.monotonic() + 1.0) as device:
            for _ in range(3):
                with pytest.raises(UnavailableError):
                    device.transmit(GET_RANDOM, response)
        assert proxy.left.wait(60)
        assert len(proxy.commands) == 1
