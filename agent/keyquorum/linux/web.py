# SPDX-License-Identifier: Apache-2.0
"""Getting something from a public web server, by its address (docs/attestation-fetch.md §3).

What comes is public and believed by its signature only; TLS is there so that nobody on the way reads which chip is
asked for.
"""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType

from keyquorum.errors import MalformedError, UnavailableError
from keyquorum.linux.web_request import Answer, Bounds, Request, ask

MOST = 4 * 1024 * 1024
BOUNDS = Bounds(step=30.0, whole=60.0, content=MOST)
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": "keyquorum", "Accept": "*/*"}
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def get(url: str, headers: Mapping[str, str] = _NO_HEADERS) -> Answer:
    """Ask for a resource; raises `UnavailableError` if nothing comes back, `MalformedError` for what is no address."""
    return _ask(url, None, headers)


def post(url: str, body: bytes) -> Answer:
    """Send JSON; raises as `get` does."""
    return _ask(url, body, {"Content-Type": "application/json"})


def _ask(url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    parts, port = _split(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or not url.isascii():
        raise MalformedError(url[:80], "", "is no address of a web server")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = Request(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        name=parts.hostname,
        path=path,
        headers={**_HEADERS, **headers},
        body=body,
    )
    try:
        answer = ask(request, ssl.create_default_context() if parts.scheme == "https" else None, BOUNDS)
    except UnavailableError as error:
        raise UnavailableError(f"{parts.hostname} {error.message}") from None
    if len(answer.content) > MOST:
        raise UnavailableError(f"{parts.hostname} answers with more than {MOST} bytes")
    return answer


def _split(url: str) -> tuple[urllib.parse.SplitResult, int | None]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that hold no address of IPv6, a port that is none
        raise MalformedError(url[:80], "", "is no address of a web server") from None
    return parts, port
