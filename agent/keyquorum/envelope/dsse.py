# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes (secure-systems-lab/dsse v1.0.2): reading and verifying. Signing is `envelope.signing`.

Fragments, sets, policies and every later signed object use this one envelope; the payload type separates their
domains. The order is fixed by I7: size, envelope shape, signature, and only then the payload's own reader.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model.fields import Fields
from keyquorum.native import sodium
from keyquorum.record import Record

FRAGMENT_TYPE = "application/vnd.keyquorum.fragment.v1+json"
SET_TYPE = "application/vnd.keyquorum.set.v1+json"
MAX_PAYLOAD = 32 * 1024
_MAX_SIGNATURES = 4


class PublicKey(Record):
    """An owner's Ed25519 public key (32 bytes)."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """The first 16 bytes of the key's SHA-256, in hexadecimal."""
        return sodium.sha256(self.raw)[:16].hex()


class Envelope(Record):
    """A parsed but not yet verified envelope."""

    what: str
    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed (DSSE "PAE")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse(value: object, what: str) -> Envelope:
    """Read an envelope from a JSON table; `what` names it in errors."""
    fields = Fields(value, what, TamperingError)
    payload_type = fields.text("payloadType")
    payload = fields.data("payload", longest=MAX_PAYLOAD)
    signatures = []
    for index, item in enumerate(fields.rows("signatures", most=_MAX_SIGNATURES)):
        row = fields.row("signatures", index, item)
        signatures.append((row.text("keyid"), row.data("sig", size=64)))
        row.finish()
    fields.finish()
    return Envelope(what=what, payload_type=payload_type, payload=payload, signatures=tuple(signatures))


def verify(envelope: Envelope, payload_type: str, owners: tuple[PublicKey, ...]) -> bytes:
    """Return the payload if one of the owners signed it as `payload_type`; raises `TamperingError` otherwise."""
    if envelope.payload_type != payload_type:
        raise TamperingError(envelope.what, "payloadType", f"is {envelope.payload_type}, not {payload_type}")
    signed = pre_authentication_encoding(payload_type, envelope.payload)
    keys = {owner.key_id: owner for owner in owners}
    for key_id, signature in envelope.signatures:
        owner = keys.get(key_id)
        if owner is not None:
            if sodium.verify_ed25519(owner.raw, signed, signature):
                return envelope.payload
            raise TamperingError(envelope.what, "signatures", f"the signature of owner {key_id} does not match")
    signers = ", ".join(key_id for key_id, _ in envelope.signatures) or "nobody"
    raise TamperingError(
        envelope.what,
        "signatures",
        f"signed by {signers}, trusted are {', '.join(keys) or 'none'}",
    )
