# SPDX-License-Identifier: Apache-2.0
"""Renewing a machine's certificate, also one that is over: enrolment is what counts (docs/custodian.md §11.4)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian import authority, possession
from keyquorum.custodian.effects import last_renewal
from keyquorum.custodian.entry import Actor, administration
from keyquorum.errors import RefusedError, TamperingError, UsageError
from keyquorum.model import enrolment_messages, renewal_messages
from keyquorum.model.enrolment_messages import MachineCertificate

if TYPE_CHECKING:
    import sqlite3
    from typing import Any

    from cryptography.x509 import Certificate

    from keyquorum.custodian.decision import Office
    from keyquorum.custodian.enrolling import Door
    from keyquorum.custodian.entry import Entry
    from keyquorum.custodian.store import Machine, Store

_WHAT = "the renewal"
_DAY = 86400  # seconds


def renew(store: Store, office: Office, door: Door, body: bytes) -> dict[str, Any]:
    """Return a certificate with the old one's key, name and labels, signed as at enrolment.

    Who asks again within a day gets one of the same time, and the log no other entry. Raises `TamperingError` for a
    message that is not whole, `RefusedError` for a machine that is not enrolled or was revoked, `UsageError` before it
    is time.
    """
    payload, signature = renewal_messages.parse_renewal_body(body)
    request = renewal_messages.parse_renewal(payload)
    if request.custodian != office.origin:
        raise TamperingError(_WHAT, "custodian", f"is {request.custodian}, not {office.origin}")
    old, now = _issued_here(door, request.certificate), office.now()
    key = authority.key_der(old)
    if not possession.signed(authority.client_key(key), renewal_messages.signed_message(payload), signature):
        raise TamperingError(_WHAT, "signature", "is not of the certificate's key")
    name, labels = authority.labels_of(old)
    machine = _enrolled(store, key, name)
    begins, ends = int(old.not_valid_before_utc.timestamp()), int(old.not_valid_after_utc.timestamp())
    if not renewal_messages.due(begins, ends, now):
        raise UsageError(f"the certificate of {name} is not due: it is valid until {ends}, and now is {now}")
    who = Actor(role="machine", name=name, key=machine.client_key.hex())
    with store.writing() as database:
        _enrolled(store, key, name)  # once more, for an operator may have revoked it meanwhile
        found = _lately(database, store, who, now) or store.note(administration("renewed-machine", who, now, name))
        made = door.authority.issue_client(key, name, labels, found.at)
    answer = MachineCertificate(
        custodian=office.origin,
        machine=name,
        number=found.number,
        certificate=made.public_bytes(Encoding.DER),
        authority=door.authority.certificate.public_bytes(Encoding.DER),
        sealing=office.sealing.public,
    )
    return office.signer.sign(enrolment_messages.CERTIFICATE_TYPE, enrolment_messages.certificate_payload(answer))


def _enrolled(store: Store, key: bytes, name: str) -> Machine:
    """Return the machine that has this TLS key and name; raises `RefusedError` if none has, or it was revoked."""
    machine = store.machine_of(hashlib.sha256(key).digest())
    if machine is None or machine.name != name:
        raise RefusedError("this certificate is of no enrolled machine", "an operator invites it anew")
    if machine.revoked:
        raise RefusedError(f"{name} is revoked")
    return machine


def _lately(database: sqlite3.Connection, store: Store, who: Actor, now: int) -> Entry | None:
    """Return the entry that renewed a machine within the last day: it lost the answer, or somebody plays it back."""
    number = last_renewal(database, who)
    found = None if number is None else store.log.entry(number)
    return found if found is not None and 0 <= now - found.at < _DAY else None


def _issued_here(door: Door, data: bytes) -> Certificate:
    """Return a certificate that this custodian issued, whatever its time; raises `TamperingError`."""
    try:
        found = x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion):
        raise TamperingError(_WHAT, "certificate", "is no X.509 certificate") from None
    if not door.authority.issued(found):
        raise TamperingError(_WHAT, "certificate", "was not issued by this custodian's authority")
    return found
