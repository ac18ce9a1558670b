# SPDX-License-Identifier: Apache-2.0
"""Enrolling this machine at a custodian, step by step (docs/custodian.md §11.2).

1 keys: a TLS key sealed by the TPM, an attestation key   3 the TPM opens the custodian's credential, the TLS key signs
2 the owner signs the enrolment, with the token           4 the certificate is checked and kept

Nothing is written before the end; whatever fails, the machine is known where it was known before.
"""

from __future__ import annotations

import time

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.enroll import machine_file
from keyquorum.envelope import recipient_key
from keyquorum.envelope.hpke import X_WING
from keyquorum.errors import TamperingError, UnavailableError, UsageError
from keyquorum.holders import custodian_answer, machine_keys
from keyquorum.holders.custodian_call import call
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.holders.custodian_where import Where
from keyquorum.linux import atomic_file, tls_connection
from keyquorum.linux.tls_connection import Patience
from keyquorum.model import enrolment_messages as messages
from keyquorum.model import renewal_messages
from keyquorum.model.enrolment_messages import Enrolment
from keyquorum.model.machine_identity import KnownCustodian
from keyquorum.native.tls import Context
from keyquorum.record import Record
from keyquorum.tpm2 import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.request import Machine
    from keyquorum.envelope.signing import Owner
    from keyquorum.holders.machine_keys import MadeKeys
    from keyquorum.model.enrolment_messages import MachineCertificate
    from keyquorum.model.invitation import Invitation

_PATH = "/v1/enroll"
_PATIENCE = 120.0  # seconds for one request: a custodian may keep its keys in a slow token


def enroll_machine(machine: Machine, owner: Owner, invitation: Invitation) -> KnownCustodian:
    """Enrol this machine; return what is known of the custodian from now on.

    Raises `HolderError` when the TPM or the custodian says no, `TamperingError` for an answer that is not its own.
    """
    with machine_file.alone(machine.tuning.machine):
        return _enroll(machine, owner, invitation)


def _enroll(machine: Machine, owner: Owner, invitation: Invitation) -> KnownCustodian:
    keys = _keys(machine)
    _refuse_another(keys, invitation)
    machine.tell(f"asking {invitation.custodian} for a certificate as {invitation.machine}")
    payload = messages.enrolment_payload(_enrolment(keys, owner, invitation))
    envelope = owner.sign(messages.ENROLMENT_TYPE, payload)
    names = invitation.custodian, invitation.machine
    body = messages.enrolment_body(envelope)
    where = _where(invitation)
    given = ask_without_certificate(where, _PATH, body, messages.CREDENTIAL_TYPE)
    credential = messages.parse_credential(given, *names)
    secret = machine_keys.activate(machine.tuning, keys.attested, credential.id_object, credential.encrypted_secret)
    message = messages.possession_message(payload, secret)
    proof = machine_keys.sign(machine.tuning, machine.answers, keys.identity, message)
    body = messages.enrolment_body(envelope, secret, proof)
    answer = ask_without_certificate(where, _PATH, body, messages.CERTIFICATE_TYPE)
    known = _known(invitation, messages.parse_certificate(answer, *names), keys)
    atomic_file.write(machine.tuning.machine, keys.identity.knowing(invitation.custodian, known).to_json() + b"\n")
    return known


def _keys(machine: Machine) -> MadeKeys:
    """Return the keys that other custodians know already, or new ones."""
    try:
        identity = load_identity(machine.tuning.machine)
    except UnavailableError:
        machine.tell("making this machine's TLS key, and its attestation key")
        return machine_keys.make(machine.tuning, machine.answers, machine.warn)
    return machine_keys.reopen(machine.tuning, machine.answers, identity)


def _enrolment(keys: MadeKeys, owner: Owner, invitation: Invitation) -> Enrolment:
    attested = keys.attested
    return Enrolment(
        custodian=invitation.custodian,
        machine=invitation.machine,
        token=invitation.token,
        owner=owner.public.raw,
        tls_key=keys.tls_key,
        ek=attested.ek,
        ak=attested.ak,
        ak_name=public.name(attested.ak),
        under_ek=False,
        certificates=(attested.certificate,) if attested.certificate else (),
    )


def _where(invitation: Invitation) -> Where:
    return Where(
        custodian=invitation.custodian,
        key=invitation.key,
        authority=invitation.authority,
        addresses=invitation.addresses,
        bank="sha256",
        pcrs=(),
    )


def ask_without_certificate(where: Where, path: str, body: bytes, kind: str) -> bytes:
    """Ask once, as a machine that has no certificate to show; return the payload of `kind` that the custodian signed.

    Raises `HolderError` when it says no or is not there, `TamperingError` for an answer that is not its own.
    """
    patience = Patience(deadline=time.monotonic() + _PATIENCE)
    try:
        with (
            Context(where.authority) as context,
            tls_connection.connect(where.addresses, context, where.custodian, patience) as connection,
        ):
            found = call(connection, where.custodian, path, body, patience)
    except TimeoutError:
        raise UnavailableError(f"{where.custodian} did not answer in {_PATIENCE:.0f} s") from None
    if found.status != 200:
        raise custodian_answer.unexpected(found, where)
    return custodian_answer.believe(found.body, kind, where)


class Certificate(Record):
    """Of a machine's certificate: from when to when it is good (seconds since 1970), its key (SubjectPublicKeyInfo)."""

    begins: int
    ends: int
    key: bytes

    def due(self) -> bool:
        """Say whether it is time for another one."""
        return renewal_messages.due(self.begins, self.ends, int(time.time()))


def read_certificate(data: bytes, what: str) -> Certificate:
    """Read a certificate of this machine in DER; `what` has it, in the `TamperingError` for one that is none."""
    try:
        found = x509.load_der_x509_certificate(data)
        return Certificate(
            begins=int(found.not_valid_before_utc.timestamp()),
            ends=int(found.not_valid_after_utc.timestamp()),
            key=found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise TamperingError(what, "certificate", "is no X.509 certificate with a key that is known here") from None


def checked_certificate(given: MachineCertificate, tls_key: bytes) -> int:
    """Refuse a certificate that would not work at the next boot, or not for long; return until when it is valid."""
    what = "the machine's certificate"
    certificate = read_certificate(given.certificate, what)
    if certificate.key != tls_key:
        raise TamperingError(what, "certificate", "is not for this machine's key")
    if certificate.due():  # it would be asked for, and the boot image be made, every day
        raise TamperingError(what, "certificate", "is over or due for renewal already, by this machine's clock")
    return certificate.ends


def _known(invitation: Invitation, given: MachineCertificate, keys: MadeKeys) -> KnownCustodian:
    expires = checked_certificate(given, keys.tls_key)
    recipient_key.parse(X_WING, given.sealing)
    return KnownCustodian(
        machine=invitation.machine,
        key=invitation.key,
        authority=invitation.authority,
        addresses=invitation.addresses,
        sealing=given.sealing,
        chain=(given.certificate,),
        expires=expires,
    )


def _refuse_another(keys: MadeKeys, invitation: Invitation) -> None:
    """Volumes name the custodian's signing key: a custodian founded anew has none of their fragments."""
    before = keys.identity.custodian(invitation.custodian)
    if before is not None and before.key != invitation.key:
        raise UsageError(
            f"{invitation.custodian} has another signing key than when this machine was enrolled there",
            "if it was founded anew, move this machine's file away and enrol its volumes again",
        )
