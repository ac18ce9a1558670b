# SPDX-License-Identifier: Apache-2.0
"""What a machine says to have its certificate renewed (docs/custodian.md §11.4), and when it is time. Pure.

The old certificate's own key signs, so nobody else can ask, and an expired certificate is as good as one in force.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import message_fields, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.message_fields import MAX_BODY, VERSION
from keyquorum.record import Record

_MAX_NAME = 128
_MAX_SIGNATURE = 256
_DOMAIN = b"keyquorum/v1/machine-renewal"
_WHAT = "the renewal"


class Renewal(Record):
    """A machine's old certificate (DER), for its custodian."""

    custodian: str
    certificate: bytes


def due(begins: int, ends: int, now: int) -> bool:
    """Say whether a certificate is in the last third of its time, or over; instants in seconds since 1970."""
    return now >= ends - (ends - begins) // 3


def renewal_payload(renewal: Renewal) -> bytes:
    """Write what is signed."""
    certificate = strict_json.to_base64(renewal.certificate)
    return strict_json.serialise({"version": VERSION, "custodian": renewal.custodian, "certificate": certificate})


def parse_renewal(payload: bytes) -> Renewal:
    """Read it; raises `TamperingError`. Nothing of it counts before the signature was checked."""
    fields = message_fields.read(payload, _WHAT)
    found = Renewal(custodian=fields.text("custodian", longest=_MAX_NAME), certificate=fields.data("certificate"))
    fields.finish()
    return found


def signed_message(payload: bytes) -> bytes:
    """Return what the certificate's key signs."""
    return _DOMAIN + b"\x00" + payload


def renewal_body(payload: bytes, signature: bytes) -> bytes:
    """Write the whole request."""
    table = {"payload": strict_json.to_base64(payload), "signature": strict_json.to_base64(signature)}
    return strict_json.serialise(table)


def parse_renewal_body(data: bytes) -> tuple[bytes, bytes]:
    """Take a request apart into payload and signature; raises `TamperingError`."""
    fields = Fields.read(data, _WHAT, MAX_BODY, TamperingError)
    found = fields.data("payload", longest=MAX_BODY), fields.data("signature", longest=_MAX_SIGNATURE)
    fields.finish()
    return found
