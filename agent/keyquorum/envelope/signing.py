# SPDX-License-Identifier: Apache-2.0
"""Signing DSSE envelopes with the owner's Ed25519 key. Only enrolment and rotation do this."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyquorum.envelope.dsse import MAX_PAYLOAD, PublicKey, pre_authentication_encoding
from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Owner:
    """Whoever may describe a volume: the holder of a private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(raw=private.public_key().public_bytes_raw())
        self._key_id = self.public.key_id

    def sign(self, payload_type: str, payload: bytes) -> dict[str, Any]:
        """Return the envelope as a JSON table."""
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"a payload of {len(payload)} bytes is more than {MAX_PAYLOAD}")
        signature = self._private.sign(pre_authentication_encoding(payload_type, payload))
        return {
            "payloadType": payload_type,
            "payload": strict_json.to_base64(payload),
            "signatures": [{"keyid": self._key_id, "sig": strict_json.to_base64(signature)}],
        }

    def __repr__(self) -> str:
        return f"<Owner {self.public.key_id}>"
