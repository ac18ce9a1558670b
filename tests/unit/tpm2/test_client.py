# SPDX-License-Identifier: Apache-2.0
"""Commands out, answers in: patience, refusals in words, and answers that are none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import HolderError, RefusedError, UnavailableError
from keyquorum.secret import Secret
from keyquorum.tpm2 import client, codes, commands
from keyquorum.tpm2.client import Tpm
from keyquorum.tpm2.response_error import ResponseError
from keyquorum.tpm2.session import Session
from keyquorum.tpm2.wire import sized, u16, u32


class Script:
    """A device that answers from a list; the last answer is repeated."""

    managed = True

    def __init__(self, *answers: bytes, deadline: float = 5.0) -> None:
        self.deadline = time.monotonic() + deadline
        self.answers, self.sent = list(answers), list[bytes]()

    def transmit(self, command: bytes, response: Secret) -> int:
        self.sent.append(command)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        response.view[: len(answer)] = answer
        return len(answer)


def plain(code: int, body: bytes = b"") -> bytes:
    return u16(0x8001) + u32(10 + len(body)) + u32(code) + body


def authorised(parameters: bytes, handle: bytes = b"", authorization: bytes = bytes(5)) -> bytes:
    body = handle + u32(len(parameters)) + parameters + authorization
    return u16(0x8002) + u32(10 + len(body)) + u32(0) + body


def test_a_command_is_marshalled_as_part_1_says() -> None:
    script = Script(plain(0))
    with Tpm(script) as tpm:
        tpm.run(0x17F, (0x03000001,), b"parameters")
    assert script.sent == [bytes.fromhex("8001 00000018 0000017f 03000001") + b"parameters"]


def test_a_password_and_its_size_stand_before_the_parameters() -> None:
    script = Script(authorised(b"", u32(0x80000001)))
    with Tpm(script) as tpm:
        assert commands.load(tpm, 0x81000001, b"private", b"public") == 0x80000001
    wanted = "8002 0000002c 00000157 81000001 00000009 40000009 0000 00 0000 0007" + b"private".hex() + "0006"
    assert script.sent == [bytes.fromhex(wanted) + b"public"]


def test_a_busy_tpm_is_asked_again() -> None:
    script = Script(plain(0x922), plain(0x908), plain(0x90A), plain(0))
    with Tpm(script) as tpm:
        tpm.run(0x17F)
    assert len(script.sent) == 4


@pytest.mark.parametrize("code", [0x922, 0x908, 0x90A, 0x920])
def test_patience_ends_at_the_deadline(code: int) -> None:
    script, started = Script(plain(code), deadline=0.2), time.monotonic()
    with Tpm(script) as tpm, pytest.raises(UnavailableError) as caught:
        tpm.run(0x17F)
    assert time.monotonic() - started < 30
    assert "PolicyPCR" in caught.value.message
    assert "try again" in caught.value.hint


def test_patience_is_bounded_where_a_deadline_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(plain(0x922), deadline=1e6)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # only the waiting is cut out
    with Tpm(script) as tpm, pytest.raises(UnavailableError):
        tpm.run(0x17F)
    assert len(script.sent) == 101


@pytest.mark.parametrize(
    ("code", "error", "kind", "words"),
    [
        (0x18B, ResponseError, 0x8B, "handle not there"),
        (0x1C4, ResponseError, 0x84, "value out of range"),
        (0x98E, ResponseError, 0x8E, "wrong authorisation value"),
        (0x9A2, ResponseError, 0xA2, "wrong authorisation value"),
        (0x99D, ResponseError, 0x9D, "policy check failed"),
        (0x1DF, ResponseError, 0x9F, "integrity check failed"),
        (0x2DB, ResponseError, 0x9B, "signature is wrong"),
        (0x128, ResponseError, 0x128, "a PCR changed in between"),
        (0x143, ResponseError, 0x143, "command not supported"),
        (0xB0143, ResponseError, 0x143, "command not supported"),
        (0x7FF, ResponseError, 0xBF, "unknown error"),
        (0x921, UnavailableError, None, "locked out"),
        (0x120, UnavailableError, None, "command disabled"),
        (0x100, UnavailableError, None, "TPM not started"),
        (0x101, UnavailableError, None, "failure mode"),
        (0x185, UnavailableError, None, "hierarchy disabled"),
        (0x902, UnavailableError, None, "no memory"),
    ],
)
def test_response_codes_become_words(code: int, error: type[HolderError], kind: int | None, words: str) -> None:
    with Tpm(Script(plain(code))) as tpm, pytest.raises(error) as caught:
        tpm.run(0x15E)
    assert words in caught.value.message
    if isinstance(caught.value, ResponseError):
        assert (caught.value.code, caught.value.command) == (kind, 0x15E)
        assert f"{code:#x}" in caught.value.message
    else:
        assert caught.value.hint, "what is unavailable says what to do"


@given(code=st.integers(1, 0xFFFFFFFF))
def test_every_response_code_becomes_a_holder_error(code: int) -> None:
    error = codes.failure(code, 0x15E)
    assert isinstance(error, (ResponseError, UnavailableError))
    assert not error.message.endswith(".")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        plain(0)[:9],
        u16(0x8001) + u32(11) + u32(0),
        u16(0x8001) + u32(9) + u32(0),
        u16(0x8002) + u32(10) + u32(0),
        u16(0x00C4) + u32(10) + u32(0),
        plain(0, b"\x03\x00"),
    ],
    ids=["nothing", "half a header", "says more", "says less", "other tag", "TPM 1.2", "half a handle"],
)
def test_an_answer_that_is_none_is_refused(answer: bytes) -> None:
    with Tpm(Script(answer)) as tpm, pytest.raises(RefusedError) as caught:
        tpm.run(0x176, (0x81000001, 0x40000007), b"", gives_handle=True)
    assert caught.value.tampered


@pytest.mark.parametrize(
    "answer",
    [
        authorised(b"")[:13],
        u16(0x8002) + u32(14) + u32(0) + u32(1),
        u16(0x8002) + u32(14) + u32(0) + u32(0xFFFFFFFF),
        plain(0),
    ],
    ids=["half a size", "one byte short", "much too long", "no authorisation"],
)
def test_an_authorised_answer_that_is_none_is_refused(answer: bytes) -> None:
    with Tpm(Script(answer)) as tpm, pytest.raises(RefusedError):
        tpm.run(0x182, (15,), b"", client.EMPTY_PASSWORD)


SELECTION = u32(1) + bytes.fromhex("000b03800000")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (u32(1) + SELECTION + u32(2) + sized(bytes(32)) * 2, "not those that were asked for"),
        (u32(1) + SELECTION + u32(1) + sized(bytes(20)), "wrong size"),
        (u32(1) + SELECTION + u32(9) + sized(bytes(32)) * 9, "items"),
        (u32(1) + SELECTION + u32(1) + sized(bytes(65)), "at most 64"),
        (u32(1) + u32(1) + bytes.fromhex("000b03810000") + u32(2) + sized(bytes(32)) * 2, "not those"),
        (u32(1) + SELECTION + u32(1) + sized(bytes(32)) + b"x", "too many"),
        (u32(1) + u32(17) + bytes(200), "items"),
    ],
    ids=["one too many", "SHA-1", "nine", "too long", "another PCR", "left over", "seventeen banks"],
)
def test_pcr_values_that_do_not_fit_are_refused(body: bytes, problem: str) -> None:
    with Tpm(Script(plain(0, body))) as tpm, pytest.raises(RefusedError) as caught:
        commands.pcr_read(tpm, "sha256", (7,))
    assert problem in caught.value.message
    assert caught.value.tampered


def test_pcrs_that_a_bank_lacks_are_missing() -> None:
    with Tpm(Script(plain(0, u32(1) + u32(1) + bytes.fromhex("000b03000000") + u32(0)))) as tpm:
        assert commands.pcr_read(tpm, "sha256", (7,)) == {}


def unsealed(change: Callable[[bytes], bytes], size: int = 32) -> Any:
    """Unseal with a scripted, correctly authorised answer of some size, changed on its way."""
    import hashlib
    import hmac

    with Secret.from_view(b"s" * 32) as salt:
        session = Session(0x03000000, salt, b"c" * 32, b"t" * 32)
    key = bytes(session._key.view)
    session.renew = lambda: None  # type: ignore[method-assign]  # so that the script knows the nonce
    parameters = sized(b"x" * size)
    response_hash = hashlib.sha256(u32(0) + u32(0x15E) + parameters).digest()
    tag = hmac.digest(key, response_hash + b"n" * 32 + b"c" * 32 + b"\x40", "sha256")
    answer = authorised(parameters, b"", sized(b"n" * 32) + b"\x40" + sized(tag))
    with Tpm(Script(change(answer))) as tpm:
        return commands.unseal(tpm, 0x80000000, b"name", session, None)


def test_only_an_identity_is_unsealed() -> None:
    with unsealed(lambda answer: answer) as identity:
        assert identity.size == 32
    for size in (0, 16, 31, 33, 128):
        with pytest.raises(RefusedError) as caught:
            unsealed(lambda answer: answer, size)
        assert caught.value.tampered


@pytest.mark.parametrize("byte", range(117))
def test_no_altered_byte_of_an_unsealed_answer_goes_unnoticed(byte: int) -> None:
    def flip(answer: bytes) -> bytes:
        altered = bytearray(answer)
        altered[byte] ^= 0x01
        return bytes(altered)

    with pytest.raises(HolderError):
        unsealed(flip)
