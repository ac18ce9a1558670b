# SPDX-License-Identifier: Apache-2.0
"""The head of an HTTP/1.1 request, and answers (RFC 9112): one form is taken and every other refused.

No folded headers, no bare newlines, no chunks, no escapes in the target: nothing here can be read in two ways.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyquorum.errors import KeyquorumError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD = 8 * 1024
MAX_BODY = 64 * 1024
END = b"\r\n\r\n"
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_MOST_HEADERS = 64
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_CHARACTERS = frozenset((0x09, *range(0x20, 0x7F)))
_PATH = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_/")
_QUERY = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:")
_WORDS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class RequestError(KeyquorumError):
    """What came is no request that is answered; `status` is the answer."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request but for its body of `length` bytes; `keep` says whether another may follow on the connection."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    length: int = 0
    keep: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back; `retry_after` in seconds, 0 for none."""

    status: int
    body: bytes = b""
    kind: str = JSON
    retry_after: int = 0


def parse(data: bytes) -> Head:
    """Read a head, `END` included; raises `RequestError`."""
    if not data.endswith(END) or b"\r\n\r\n" in data[:-4]:
        raise RequestError(400, "the head of the request does not end")
    lines = data[: -len(END)].split(b"\r\n")
    if not all(map(_CHARACTERS.issuperset, lines)):
        raise RequestError(400, "the head of the request has characters that belong into none")
    method, path, query = _request_line(lines[0])
    if len(lines) - 1 > _MOST_HEADERS:
        raise RequestError(431, f"the request has more than {_MOST_HEADERS} headers")
    headers = _headers(lines[1:])
    if "host" not in headers:
        raise RequestError(400, "the request names no host")
    length = _length(method, headers)
    return Head(method=method, path=path, query=query, length=length, keep=_keep(headers))


def _request_line(line: bytes) -> tuple[str, str, dict[str, str]]:
    parts = line.decode("ascii").split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1":
        raise RequestError(400, "the request is none of HTTP/1.1")
    method, target, _ = parts
    if method not in {"GET", "POST"}:
        raise RequestError(405, "methods are GET and POST")
    path, mark, text = target.partition("?")
    if not path.startswith("/") or not _PATH.issuperset(path):
        raise RequestError(404, "there is no such path")
    query: dict[str, str] = {}
    for pair in text.split("&") if mark else ():
        name, equals, value = pair.partition("=")
        if not equals or not name or name in query or not _QUERY.issuperset(name + value):
            raise RequestError(400, "the query is not made of NAME=VALUE, each once, without escapes")
        query[name] = value
    return method, path, query


def _headers(lines: list[bytes]) -> dict[str, str]:
    """Return the headers by name in lower case; one that is there twice is refused."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise RequestError(400, "a header is none")
        key = name.decode("ascii").lower()
        if key in found:
            raise RequestError(400, f"the header {key} is there twice")
        found[key] = value.decode("ascii").strip(" \t")
    return found


def _length(method: str, headers: dict[str, str]) -> int:
    for name in ("transfer-encoding", "expect", "upgrade"):
        if name in headers:
            raise RequestError(400, f"{name} is not spoken here")
    text = headers.get("content-length")
    if text is None:
        if method == "POST":
            raise RequestError(411, "the request does not say how long its body is")
        return 0
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or str(int(text)) != text:
        raise RequestError(400, "the length of the body is no number")
    if int(text) > MAX_BODY:
        raise RequestError(413, f"a body has at most {MAX_BODY} bytes")
    if method == "GET" and int(text):
        raise RequestError(400, "such a request has no body")
    return int(text)


def _keep(headers: dict[str, str]) -> bool:
    words = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    return "close" not in words


def serialise(answer: Answer, *, keep: bool) -> bytes:
    """Write an answer."""
    lines = [
        f"HTTP/1.1 {answer.status} {_WORDS[answer.status]}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if answer.retry_after:
        lines.append(f"Retry-After: {answer.retry_after}")
    return "\r\n".join(lines).encode("ascii") + END + answer.body
