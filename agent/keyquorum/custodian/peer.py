# SPDX-License-Identifier: Apache-2.0
"""Another custodian, as this one asks it: HTTPS with both certificates, bounded in time and size (docs §9.2, §12)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import KeyquorumError, RefusedError, UnavailableError
from keyquorum.linux.web_request import Bounds, Request, ask

if TYPE_CHECKING:
    from keyquorum.custodian.site_settings import Address

_MAX_ANSWER = 64 * 1024
BOUNDS = Bounds(step=15.0, whole=60.0, content=_MAX_ANSWER)
_SHOWN = 200


class AnsweredError(RefusedError):
    """The other custodian answers with another status than 200."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where it is, the name that its certificate has, its authority, and our certificate and key (PEM files).

    `bounds` are for one question.
    """

    address: Address
    name: str
    authority: str
    certificate: str
    key: str
    bounds: Bounds = BOUNDS

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """Return the answer's body; raises `UnavailableError` if there is none, `RefusedError` for a refusal."""
        where = f"{self.name} at {self.address}"
        try:
            context = ssl.create_default_context(cafile=self.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise KeyquorumError(
                f"TLS cannot be set up from {self.authority} and {self.certificate}: {error}"
            ) from None
        asked = Request(host=self.address.host, port=self.address.port, name=self.name, path=path, body=body)
        try:
            answer = ask(asked, context, self.bounds)
        except UnavailableError as error:
            raise UnavailableError(f"{where} {error.message}") from None
        found = answer.content
        if len(found) > _MAX_ANSWER:
            raise RefusedError(f"{where} answers with more than {_MAX_ANSWER} bytes", tampered=True)
        if answer.status != 200:
            said = found[:_SHOWN].decode("ascii", "replace")
            raise AnsweredError(f"{where} says {answer.status}: {said}", answer.status)
        return found
