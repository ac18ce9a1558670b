# SPDX-License-Identifier: Apache-2.0
"""Messages between machine and custodian: read as written, refused when anything is off, and for one question only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.model import release_messages as messages
from keyquorum.model import strict_json
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.message_fields import MAX_BODY
from keyquorum.model.release_messages import Challenge, Denied, Released, ReleaseRequest, TpmEvidence, Waiting

FRAGMENT = FragmentName(volume="6d1c7d1e-5ab0-4d6f-8b0e-000000000001", set_id=bytes(range(16)), epoch=3, index=2)
NONCE, QUESTION = bytes(range(32)), bytes(range(32, 64))
PARIS = "custodian.example/paris"
REQUEST = ReleaseRequest(
    nonce=NONCE,
    fragment=FRAGMENT,
    kem="x-wing",
    key=b"one-time key in DER",
    evidence=TpmEvidence(attest=b"attest", signature=b"sig", pcrs=((4, bytes(32)), (11, bytes(48))), log=b"log"),
)
CHALLENGE = Challenge(custodian=PARIS, fragment=FRAGMENT, nonce=NONCE, expires=1_800_000_060)
ANSWERS = (
    Released(question=QUESTION, number=41, enc=b"enc", ciphertext=b"ct"),
    Waiting(question=QUESTION, number=41, retry_after=30),
    Denied(question=QUESTION, number=41, check="policy.hours", expected="mon-fri", actual="sunday"),
)


def test_every_message_is_read_as_it_was_written() -> None:
    assert messages.parse_challenge_request(messages.challenge_request(FRAGMENT)) == FRAGMENT
    assert messages.parse_challenge(messages.challenge_payload(CHALLENGE), PARIS, FRAGMENT) == CHALLENGE
    assert messages.parse_release_request(messages.release_request(REQUEST)) == REQUEST
    for answer in ANSWERS:
        assert messages.parse_answer(messages.answer_payload(answer), QUESTION) == answer
    assert messages.parse_answer_body(messages.answer_body({"payload": ""}, b"receipt")) == (
        {"payload": ""},
        b"receipt",
    )


def challenge(data: bytes) -> object:
    return messages.parse_challenge(data, PARIS, FRAGMENT)


def answer(data: bytes) -> object:
    return messages.parse_answer(data, QUESTION)


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "challenge request": (messages.parse_challenge_request, messages.challenge_request(FRAGMENT)),
    "challenge": (challenge, messages.challenge_payload(CHALLENGE)),
    "release request": (messages.parse_release_request, messages.release_request(REQUEST)),
    "released": (answer, messages.answer_payload(ANSWERS[0])),
    "waiting": (answer, messages.answer_payload(ANSWERS[1])),
    "denied": (answer, messages.answer_payload(ANSWERS[2])),
    "body": (messages.parse_answer_body, messages.answer_body({"payload": ""}, b"receipt")),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_missing_or_too_much_is_refused(name: str) -> None:
    read, data = READERS[name]
    table = strict_json.parse(data, "", 1 << 20, TamperingError)
    odd: list[Any] = [None, [], 1 << 62]
    wrong: list[Any] = [{}, [], None, table | {"share": "00"}]
    wrong += [{key: table[key] for key in table if key != left} for left in table]
    wrong += [
        table | {inner: table[inner] | {"x": 1}}
        for inner in table
        if isinstance(table[inner], dict) and inner != "envelope"
    ]
    wrong += [table | {key: value} for key in table for value in odd]
    wrong += [table | {"version": 2}]
    for case in wrong:
        with pytest.raises(TamperingError):
            read(strict_json.serialise(case))
    for raw in (b"", data + b"x", b" " * (MAX_BODY + 1), data[:-1]):
        with pytest.raises(TamperingError):
            read(raw)


def request(**changes: Any) -> bytes:
    table = strict_json.parse(messages.release_request(REQUEST), "", 1 << 20, TamperingError)
    for path, value in changes.items():
        outer, _, inner = path.partition("__")
        if inner:
            table[outer][inner] = value
        else:
            table[outer] = value
    return strict_json.serialise(table)


REQUESTS: dict[str, dict[str, Any]] = {
    "short nonce": {"nonce": "00" * 31},
    "capitals": {"nonce": "AB" * 32},
    "epoch 0": {"epoch": 0},
    "index 256": {"index": 256},
    "volume in capitals": {"volume": FRAGMENT.volume.upper()},
    "short volume": {"volume": FRAGMENT.volume[1:]},
    "another kem": {"recipient__kem": "rsa"},
    "no key": {"recipient__key": ""},
    "a large key": {"recipient__key": "AAAA" * 1400},
    "not base64": {"recipient__key": "A"},
    "another technology": {"evidence__technology": "sgx"},
    "a large quote": {"evidence__attest": "AAAA" * 1400},
    "pcr 24": {"evidence__pcrs": {"24": "00" * 32}},
    "pcr 07": {"evidence__pcrs": {"07": "00" * 32}},
    "pcr -1": {"evidence__pcrs": {"-1": "00" * 32}},
    "a number in other digits": {"evidence__pcrs": {"\u0667": "00" * 32}},
    "sha1": {"evidence__pcrs": {"7": "00" * 20}},
    "odd": {"evidence__pcrs": {"7": "00" * 32 + "0"}},
    "a number": {"evidence__pcrs": {"7": 7}},
}


@pytest.mark.parametrize("case", REQUESTS)
def test_what_is_no_request(case: str) -> None:
    with pytest.raises(TamperingError):
        messages.parse_release_request(request(**REQUESTS[case]))


def test_a_log_that_no_custodian_would_take_is_not_sent() -> None:
    fits = REQUEST.with_(evidence=REQUEST.evidence.with_(log=bytes(44 * 1024)))
    assert len(messages.release_request(fits)) < MAX_BODY
    with pytest.raises(TamperingError, match="log"):
        messages.release_request(REQUEST.with_(evidence=REQUEST.evidence.with_(log=bytes(45 * 1024))))


def test_a_challenge_is_of_one_custodian_for_one_fragment() -> None:
    payload = messages.challenge_payload(CHALLENGE)
    with pytest.raises(TamperingError, match="is of custodian"):
        messages.parse_challenge(payload, "custodian.example/rome", FRAGMENT)
    for other in (FRAGMENT.with_(epoch=4), FRAGMENT.with_(index=3), FRAGMENT.with_(set_id=bytes(16))):
        with pytest.raises(TamperingError, match="another fragment"):
            messages.parse_challenge(payload, PARIS, other)


@pytest.mark.parametrize("given_answer", ANSWERS, ids=lambda found: type(found).__name__)
def test_an_answer_is_to_one_question(given_answer: Released | Waiting | Denied) -> None:
    with pytest.raises(TamperingError, match="another one than was asked"):
        messages.parse_answer(messages.answer_payload(given_answer), bytes(32))


@pytest.mark.parametrize(
    "wrong", [{"retry_after": 0}, {"retry_after": 3601}, {"retry_after": "1"}, {"answer": "denied"}]
)
def test_answers_have_bounds(wrong: dict[str, Any]) -> None:
    table = strict_json.parse(messages.answer_payload(ANSWERS[1]), "", 1 << 20, TamperingError)
    with pytest.raises(TamperingError):
        messages.parse_answer(strict_json.serialise(table | wrong), QUESTION)


def test_what_a_custodian_says_may_be_shown_on_a_console() -> None:
    rude = messages.answer_payload(ANSWERS[2].with_(actual="\x1b[2J"))
    with pytest.raises(TamperingError, match="do not print"):
        messages.parse_answer(rude, QUESTION)


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(sorted(READERS)), at=st.integers(0, 1000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_seen(name: str, at: int, bit: int) -> None:
    """Signatures are somebody else's; the reader only must not fall over, nor read two texts as one message."""
    read, data = READERS[name]
    flipped = bytearray(data)
    flipped[at % len(data)] ^= 1 << bit
    with contextlib.suppress(TamperingError):
        assert read(bytes(flipped)) != read(data)
