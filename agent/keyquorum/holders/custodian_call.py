# SPDX-License-Identifier: Apache-2.0
"""One request and its answer over a connection to a custodian (docs/custodian.md §3)."""

from __future__ import annotations

from keyquorum.errors import UnavailableError
from keyquorum.model import http_answer
from keyquorum.model.http_answer import AnswerReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.linux.tls_connection import Connection, Patience
    from keyquorum.model.http_answer import HttpAnswer


def call(connection: Connection, custodian: str, path: str, body: bytes, patience: Patience) -> HttpAnswer:
    """Send a request and return the answer; raises `UnavailableError`, `TamperingError` or `TimeoutError`."""
    connection.write(http_answer.post(custodian, path, body))
    reader = AnswerReader()
    while (data := connection.read(patience)) and (answer := reader.feed(data)) is None:
        continue
    if not data or answer is None:
        raise UnavailableError(f"{custodian} ended the connection before its answer was whole")
    return answer
