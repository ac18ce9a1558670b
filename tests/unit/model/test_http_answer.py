# SPDX-License-Identifier: Apache-2.0
"""The reader of HTTP answers: what it takes, what it refuses, and that nothing else ever comes out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.model.http_answer import MAX_BODY, MAX_HEAD, AnswerReader, HttpAnswer, post

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"


def read(data: bytes) -> HttpAnswer | None:
    return AnswerReader().feed(data)


def test_a_whole_answer() -> None:
    assert read(GOOD) == HttpAnswer(status=200, retry_after=0, body=b"hello")


def test_a_request_for_retry() -> None:
    answer = read(b"HTTP/1.1 503 \r\nretry-AFTER: 30\r\nContent-Length:0\r\n\r\n")
    assert answer == HttpAnswer(status=503, retry_after=30, body=b"")


def test_a_status_line_without_a_reason() -> None:
    answer = read(b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n")
    assert answer is not None
    assert answer.status == 404


@given(st.lists(st.integers(0, len(GOOD))))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    reader, before = AnswerReader(), 0
    answer = None
    for cut in sorted({*cuts, len(GOOD)}):
        assert answer is None
        answer = reader.feed(GOOD[before:cut])
        before = cut
    assert answer == read(GOOD)


BAD = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
    "not final": b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
    "no such status": b"HTTP/1.1 600 x\r\nContent-Length: 0\r\n\r\n",
    "status of letters": b"HTTP/1.1 2O0 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n",
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
    "long number": b"HTTP/1.1 200 OK\r\nContent-Length: 000000005\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "nameless": b"HTTP/1.1 200 OK\r\n: 0\r\nContent-Length: 0\r\n\r\n",
    "bare line feed": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
    "control character": b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n",
    "a date to retry": b"HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 64 + b"Content-Length: 0\r\n\r\n",
    "head without an end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD,
    "more than it says": GOOD + b"!",
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    with pytest.raises(TamperingError):
        read(BAD[name])


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_a_beginning_is_no_answer(size: int) -> None:
    assert read(GOOD[:size]) is None


@given(st.binary(max_size=300))
def test_junk_is_refused_or_waited_for(data: bytes) -> None:
    try:
        assert read(b"HTTP/1.1 200 OK\r\n" + data) is None or b"ength" in data.lower()
        read(data)
    except TamperingError:
        return


@given(st.data())
def test_an_altered_byte_never_gives_another_fault(data: st.DataObject) -> None:
    altered = bytearray(GOOD)
    altered[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(altered))
    except TamperingError:
        return


def test_a_request() -> None:
    head, _, body = post("eu-1.example", "/v1/challenge", b"{}").partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n") == [
        b"POST /v1/challenge HTTP/1.1",
        b"Host: eu-1.example",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
