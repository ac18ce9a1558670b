# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 as a machine speaks it with a custodian (RFC 9112; docs/custodian.md §3): one request, one answer. Pure.

Of HTTP only what the protocol needs is understood; everything else in an answer is an error and not a guess.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MAX_HEAD = 8 * 1024
MAX_BODY = 64 * 1024
_MAX_FIELDS = 64
_MAX_SECONDS = 86400
_WHAT = "the custodian's HTTP answer"
_END = b"\r\n\r\n"
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TEXT = frozenset((0x09, *range(0x20, 0x7F)))
_DIGITS = frozenset(b"0123456789")


class HttpAnswer(Record):
    """A whole answer. `retry_after` is in seconds, 0 when nothing was said."""

    status: int
    retry_after: int
    body: bytes


class _Head(Record):
    status: int
    retry_after: int
    length: int


def post(host: str, path: str, body: bytes) -> bytes:
    """Return a request with a JSON body; `host` and `path` are ours and not escaped."""
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode("ascii") + _END + body


class AnswerReader:
    """Takes an answer in pieces as they come from the wire; errors are `TamperingError`."""

    def __init__(self) -> None:
        self._held = b""
        self._head: _Head | None = None

    def feed(self, data: bytes) -> HttpAnswer | None:
        """Take some bytes; return the answer when it is whole."""
        self._held += data
        if self._head is None:
            end = self._held.find(_END, 0, MAX_HEAD)
            if end < 0:
                if len(self._held) >= MAX_HEAD:
                    _refuse("head", f"has more than {MAX_HEAD} bytes")
                return None
            self._head, self._held = _read_head(self._held[:end]), self._held[end + len(_END) :]
        missing = self._head.length - len(self._held)
        if missing < 0:
            _refuse("body", f"has {-missing} bytes more than it says")
        if missing:
            return None
        return HttpAnswer(status=self._head.status, retry_after=self._head.retry_after, body=self._held)


def _read_head(head: bytes) -> _Head:
    line, *rows = head.split(b"\r\n")
    if len(rows) > _MAX_FIELDS:
        _refuse("head", f"has more than {_MAX_FIELDS} fields")
    fields: dict[bytes, bytes] = {}
    for row in rows:
        name, colon, value = row.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name) or not _TEXT.issuperset(value):
            _refuse("head", "has a line that is no field")
        if name.lower() in fields and name.lower() in {b"content-length", b"retry-after"}:
            _refuse("head", f"has {name.decode('ascii')} twice")
        fields[name.lower()] = value.strip(b" \t")
    for unwanted in (b"transfer-encoding", b"content-encoding"):
        if unwanted in fields:
            _refuse("head", f"has {unwanted.decode('ascii')}, which the protocol does not use")
    return _Head(
        status=_status(line),
        length=_number(fields, b"content-length", MAX_BODY),
        retry_after=_number(fields, b"retry-after", _MAX_SECONDS) if b"retry-after" in fields else 0,
    )


def _status(line: bytes) -> int:
    version, code, rest = line[:9], line[9:12], line[12:]
    if version != b"HTTP/1.1 " or len(code) != 3 or not _DIGITS.issuperset(code) or not _TEXT.issuperset(rest):
        _refuse("status line", "is none of HTTP/1.1")
    if (rest and rest[:1] != b" ") or not 200 <= int(code) <= 599:
        _refuse("status line", "is none of a final answer")
    return int(code)


def _number(fields: dict[bytes, bytes], name: bytes, most: int) -> int:
    value, shown = fields.get(name, b""), name.decode("ascii")
    if not 0 < len(value) <= 8 or not _DIGITS.issuperset(value) or int(value) > most:
        _refuse(shown, f"is no number up to {most}")
    return int(value)


def _refuse(where: str, problem: str) -> NoReturn:
    raise TamperingError(_WHAT, where, problem)
