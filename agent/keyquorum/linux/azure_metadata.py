# SPDX-License-Identifier: Apache-2.0
"""What Azure's metadata service has for a machine's evidence (docs/attestation-collect.md §6). Believed in nothing."""

from __future__ import annotations

import binascii

from keyquorum.errors import KeyquorumError, TamperingError, UnavailableError
from keyquorum.evidence import certificate
from keyquorum.linux import web
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyquorum.linux.web_request import Answer

SERVICE = "http://169.254.169.254"
TD_REPORT = 1024  # bytes: TDREPORT_STRUCT, at the beginning of the paravisor's hardware report
_CERTIFICATES = "/metadata/THIM/amd/certification"
_QUOTE = "/acc/tdquote"
_MAX_ANSWER = 256 * 1024
_MAX_QUOTE = 64 * 1024
_MAX_PEM = 64 * 1024
_WHAT = "the metadata service's answer"


class AzureMetadata:
    """The service. `get` and `post` are `linux.web`'s."""

    def __init__(
        self,
        service: str = SERVICE,
        get: Callable[[str, Mapping[str, str]], Answer] = web.get,
        post: Callable[[str, bytes], Answer] = web.post,
    ) -> None:
        self._service, self._get, self._post = service, get, post

    def certificates(self) -> bytes:
        """Return chip, ASK and ARK in DER, one after the other; b"" where nothing of use comes: they can be fetched."""
        try:
            answer = self._get(self._service + _CERTIFICATES, {"Metadata": "true"})
            if answer.status != 200:
                return b""
            fields = Fields.read(answer.content, _WHAT, _MAX_ANSWER, TamperingError)
            texts = [fields.take(name) for name in ("vcekCert", "certificateChain")]
            if not all(isinstance(text, str) and text.isascii() for text in texts):
                return b""
            return b"".join(certificate.from_pem("\n".join(texts).encode(), _WHAT, _MAX_PEM))
        except KeyquorumError:
            return b""

    def td_quote(self, hardware_report: bytes) -> bytes:
        """Return the quote of a trust domain for its report; raises `UnavailableError`."""
        body = strict_json.serialise({"report": _base64url(hardware_report[:TD_REPORT])})
        answer = self._post(self._service + _QUOTE, body)
        if answer.status != 200:
            raise UnavailableError(f"the metadata service of the cloud gives no quote: it answers {answer.status}")
        try:
            fields = Fields.read(answer.content, _WHAT, _MAX_ANSWER, TamperingError)
            return _decoded(fields.text("quote", longest=_MAX_QUOTE * 2))
        except TamperingError as error:
            raise UnavailableError(f"the metadata service of the cloud gives no quote: {error.message}") from None


def _base64url(data: bytes) -> str:
    return strict_json.to_base64(data).replace("+", "-").replace("/", "_").rstrip("=")


def _decoded(text: str) -> bytes:
    """Read base64url with or without fill (RFC 4648 §5)."""
    bare = text.rstrip("=")
    try:
        found = binascii.a2b_base64(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error:
        raise TamperingError(_WHAT, "quote", "is not base64url") from None
    if not found or len(found) > _MAX_QUOTE:
        raise TamperingError(_WHAT, "quote", f"has {len(found)} bytes")
    return found
