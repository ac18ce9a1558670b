# SPDX-License-Identifier: Apache-2.0
"""Collateral as it travels: the responses of Intel's service, and the file in which tools exchange all of it.

docs/attestation-intel.md §3. Nothing here is believed: what is taken apart are the bytes that were signed.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from keyquorum.errors import TamperingError
from keyquorum.evidence.intel_collateral import MAX_JSON, parse_identity, parse_tcb_info
from keyquorum.model.fields import Fields

MAX_BUNDLE = 8 * 1024 * 1024  # two revocation lists in hexadecimal among it
_SIGNATURE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What Intel says of platforms, as its service gives it: JSON as it was signed, r ‖ s, chains in PEM, lists in DER.

    Each chain is signer and root. The lists are those of the PCK certificate's issuer and of the root.
    """

    tcb_info: bytes
    tcb_info_signature: bytes
    tcb_info_chain: bytes
    qe_identity: bytes
    qe_identity_signature: bytes
    qe_identity_chain: bytes
    pck_crl: bytes
    root_crl: bytes


def unwrap(response: bytes, name: str, what: str) -> tuple[bytes, bytes]:
    """Return what was signed and the signature from a response of Intel's service; raises `TamperingError`.

    `name` is "tcbInfo" or "enclaveIdentity". What is signed are the bytes of its value as they stand in the response.
    """
    head, middle, tail = f'{{"{name}":'.encode(), b',"signature":"', b'"}'
    text = response.strip()
    start = len(text) - len(tail) - 2 * _SIGNATURE - len(middle)
    if (
        len(text) > MAX_JSON
        or start < len(head)
        or not (text.startswith(head) and text[start:].startswith(middle) and text.endswith(tail))
    ):
        raise TamperingError(what, name, "is no response of Intel's service")
    return text[len(head) : start], _bytes(text[start + len(middle) : -len(tail)], what, "signature")


def parse_bundle(data: bytes, what: str = "the collateral") -> Collateral:
    """Read collateral in the one JSON file that tools exchange: texts, chains in PEM, signatures and lists in hex."""
    fields = Fields.read(data, what, MAX_BUNDLE, TamperingError)

    def text(name: str) -> bytes:
        value = fields.take(name)
        if not isinstance(value, str) or not value.isascii():
            fields.fail(name, "must be a text in ASCII")
        return value.encode("ascii")

    def octets(name: str) -> bytes:
        return _bytes(text(name), what, name)

    found = Collateral(
        tcb_info=text("tcb_info"),
        tcb_info_signature=octets("tcb_info_signature"),
        tcb_info_chain=text("tcb_info_issuer_chain"),
        qe_identity=text("qe_identity"),
        qe_identity_signature=octets("qe_identity_signature"),
        qe_identity_chain=text("qe_identity_issuer_chain"),
        pck_crl=octets("pck_crl"),
        root_crl=octets("root_ca_crl"),
    )
    for name in ("pck_crl_issuer_chain", "pck_certificate_chain"):  # not needed: the quote has the chain of its PCK
        if name in fields.names():
            fields.take(name)
    fields.finish()
    return found


def next_update(collateral: Collateral) -> int:
    """Return the earlier `nextUpdate` of the two, as they say it themselves, unverified; raises `TamperingError`."""
    info = parse_tcb_info(collateral.tcb_info, "TCB Info")
    identity = parse_identity(collateral.qe_identity, "QE Identity")
    return min(info.issue.next_update, identity.issue.next_update)


def _bytes(text: bytes, what: str, name: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise TamperingError(what, name, "is not hexadecimal") from None
