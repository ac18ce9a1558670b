# SPDX-License-Identifier: Apache-2.0
"""HTTP heads: one form is read, and whatever might be read in two ways is refused."""

from __future__ import annotations

import http.client
import io
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.custodian import http_head
from keyquorum.custodian.http_head import Answer, RequestError

GOOD = b"POST /v1/release HTTP/1.1\r\nHost: custodian.example:8443\r\nContent-Length: 12\r\n\r\n"


def test_a_head() -> None:
    found = http_head.parse(GOOD)
    assert (found.method, found.path, found.query, found.length, found.keep) == ("POST", "/v1/release", {}, 12, True)
    query = b"GET /v1/log/consistency?old=3&new=17 HTTP/1.1\r\nhost:\tc \r\nConnection: foo, Close\r\n\r\n"
    found = http_head.parse(query)
    assert (found.query, found.length, found.keep) == ({"old": "3", "new": "17"}, 0, False)
    named = http_head.parse(b"GET /v1/witnessed?origin=custodian.example/paris HTTP/1.1\r\nHost: c\r\n\r\n")
    assert named.query == {"origin": "custodian.example/paris"}


def refused(data: bytes) -> int:
    with pytest.raises(RequestError) as caught:
        http_head.parse(data)
    assert caught.value.message
    return caught.value.status


REFUSED = {
    b"POST  /v1/release HTTP/1.1": 400,
    b"POST /v1/release HTTP/1.0": 400,
    b"POST /v1/release": 400,
    b"post /v1/release HTTP/1.1": 405,
    b"DELETE /v1/release HTTP/1.1": 405,
    b"POST v1/release HTTP/1.1": 404,
    b"POST http://custodian.example/v1/release HTTP/1.1": 404,
    b"POST /v1/%72elease HTTP/1.1": 404,
    b"POST /v1/../release HTTP/1.1": 404,
    b"POST /v1/release? HTTP/1.1": 400,
    b"POST /v1/release?a HTTP/1.1": 400,
    b"POST /v1/release?a=1&a=2 HTTP/1.1": 400,
    b"POST /v1/release?a=%31 HTTP/1.1": 400,
    b"POST /v1/release\x00 HTTP/1.1": 400,
    "POST /v1/release\xe9 HTTP/1.1".encode("latin-1"): 400,
}


@pytest.mark.parametrize("line", REFUSED)
def test_request_lines_that_are_none(line: bytes) -> None:
    assert refused(GOOD.replace(b"POST /v1/release HTTP/1.1", line)) == REFUSED[line]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Content-Length: 12", 400),
        (b"Content-Length : 12", 400),
        (b" folded", 400),
        (b"X:\r\n y", 400),
        (b"no colon", 400),
        (b": nothing", 400),
        (b"X: a\nY: b", 400),
        (b"X: a\rY: b", 400),
        (b"X: \x7f", 400),
        (b"Host: another", 400),
        (b"Transfer-Encoding: chunked", 400),
        (b"transfer-encoding: identity", 400),
        (b"Expect: 100-continue", 400),
        (b"Upgrade: h2c", 400),
        (b"\r\n".join(b"X%d: y" % number for number in range(64)), 431),
    ],
)
def test_headers_that_are_none(header: bytes, status: int) -> None:
    assert refused(GOOD[:-2] + header + b"\r\n\r\n") == status


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1 2", b"0x10", b"", b"012", b"1e3", b"\xb2", b"9" * 13])
def test_lengths_that_are_none(length: bytes) -> None:
    assert refused(GOOD.replace(b"12", length)) == 400


def test_bounds() -> None:
    assert http_head.parse(GOOD.replace(b"12", b"65536")).length == http_head.MAX_BODY
    assert refused(GOOD.replace(b"12", b"65537")) == 413
    assert refused(GOOD.replace(b"Content-Length: 12\r\n", b"")) == 411
    assert refused(GOOD.replace(b"POST", b"GET")) == 400
    for half in (GOOD[:-1], GOOD + b"\r\n\r\n", b"", b"\r\n\r\n"):
        assert refused(half) == 400


@given(st.binary(max_size=300))
def test_junk_is_refused_or_read(junk: bytes) -> None:
    for data in (junk, junk + b"\r\n\r\n", GOOD[:-2] + junk + b"\r\n\r\n"):
        try:
            found = http_head.parse(data)
        except RequestError:
            continue
        assert found.method in {"GET", "POST"}
        assert 0 <= found.length <= http_head.MAX_BODY


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def test_answers_are_read_by_others() -> None:
    data = http_head.serialise(Answer(status=503, body=b"{}", retry_after=5), keep=False)
    answer = http.client.HTTPResponse(cast("http.client.socket.socket", _Socket(data)))  # type: ignore[name-defined]
    answer.begin()
    assert (answer.status, answer.read(), answer.getheader("Retry-After")) == (503, b"{}", "5")
    assert answer.getheader("Connection") == "close"
    assert b"Retry-After" not in http_head.serialise(Answer(status=200), keep=True)
