# SPDX-License-Identifier: Apache-2.0
"""Letting a machine in: its owner's word, an operator's token, and a TPM that opens a credential (docs §11.2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian import possession
from keyquorum.custodian.authority import key_der
from keyquorum.custodian.entry import DECISION, Actor, Entry
from keyquorum.custodian.store import Machine
from keyquorum.custodian.store_enrolment import Enrolments
from keyquorum.envelope import dsse
from keyquorum.errors import RefusedError, TamperingError
from keyquorum.evidence import credential, tpm_keys, tpm_public
from keyquorum.evidence.ek_certificate import EkTrust
from keyquorum.evidence.result import Outcome, Status, printable
from keyquorum.evidence.tpm_keys import Activation, KeyEvidence
from keyquorum.model import enrolment_messages
from keyquorum.model.enrolment_messages import MachineCertificate, MachineCredential

if TYPE_CHECKING:
    from typing import Any

    from keyquorum.custodian.authority import Authority
    from keyquorum.custodian.decision import Office
    from keyquorum.custodian.store import Store
    from keyquorum.custodian.store_enrolment import Offer
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.result import Check
    from keyquorum.evidence.tpm_quote import AttestationKey
    from keyquorum.model.enrolment_messages import Enrolment

_WHAT = "the enrolment"
_MOST_FAILED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """By what machines are let in: the authority that certifies them, and roots of the makers of TPMs."""

    authority: Authority
    ek_roots: tuple[Certificate, ...] = ()


class Reception:
    """Where one thread enrols machines, with a store of its own."""

    def __init__(self, store: Store, office: Office, door: Door) -> None:
        self._store, self._office, self._door = store, office, door
        self._enrolments = Enrolments(store)

    def enrol(self, body: bytes) -> dict[str, Any]:
        """Return the credential for the machine's TPM or, to the right answer, its certificate; both signed.

        Raises `TamperingError` for a message that is not whole, `RefusedError` with the first check that failed.
        """
        envelope, answer, signature = enrolment_messages.parse_enrolment_body(body)
        parsed = dsse.parse(envelope, _WHAT)
        # The owner is not known before, so the message says by which key it is signed; the token says that it counts.
        request = enrolment_messages.parse_enrolment(parsed.payload)
        dsse.verify(parsed, enrolment_messages.ENROLMENT_TYPE, (dsse.PublicKey(raw=request.owner),))
        office, now = self._office, self._office.now()
        if request.custodian != office.origin:
            raise TamperingError(_WHAT, "custodian", f"is {request.custodian}, not {office.origin}")
        offered = self._enrolments.offered(request.token, now)
        if request.machine != offered.machine:
            raise RefusedError(f"the token is for {offered.machine}, not for {request.machine}")
        secret = office.sealing.enrolment_secret(parsed.payload)
        if answer:
            key = self._attested(request, offered, Activation(secret=secret, answer=answer), now)
            proven = possession.check(request, parsed.payload, answer, signature)
            if proven.outcome is Outcome.FAILED:
                raise self._refused(request, f"{proven.name}: {proven.actual}", (proven,), now)
            return self._certified(request, offered, key, now)
        return self._challenge(request, offered, secret, now)

    def _trust(self, offered: Offer) -> EkTrust:
        listed = frozenset({offered.listed_ek}) if offered.listed_ek else frozenset[bytes]()
        return EkTrust(roots=self._door.ek_roots, listed=listed)

    def _challenge(self, request: Enrolment, offered: Offer, secret: bytes, now: int) -> dict[str, Any]:
        evidence = _evidence(request)
        seed = self._office.random(_seed_size(request.ek))
        result, made = tpm_keys.challenge(evidence, self._trust(offered), now, secret, seed)
        if made is None:
            raise self._refused(request, result.reason, result.failed, now)
        answer = MachineCredential(
            custodian=self._office.origin,
            machine=request.machine,
            id_object=made.id_object,
            encrypted_secret=made.encrypted_secret,
        )
        payload = enrolment_messages.credential_payload(answer)
        return self._office.signer.sign(enrolment_messages.CREDENTIAL_TYPE, payload)

    def _attested(self, request: Enrolment, offered: Offer, activation: Activation, now: int) -> AttestationKey:
        """Return the attestation key if the TPM has it, as it showed by opening the credential."""
        result, key = tpm_keys.accept(_evidence(request), self._trust(offered), now, activation)
        if key is None or result.status is not Status.TRUSTED:
            raise self._refused(request, result.reason, result.failed, now)
        return key

    def _certified(self, request: Enrolment, offered: Offer, key: AttestationKey, now: int) -> dict[str, Any]:
        authority = self._door.authority
        certificate = authority.issue_client(request.tls_key, request.machine, offered.labels, now)
        machine = Machine(
            name=request.machine,
            client_key=hashlib.sha256(key_der(certificate)).digest(),
            attestation_key=key.area,
            qualified_name=key.qualified_name,
        )
        found = self._enrolments.finish(request.token, machine, request.owner, now)
        answer = MachineCertificate(
            custodian=self._office.origin,
            machine=request.machine,
            number=found.number,
            certificate=certificate.public_bytes(Encoding.DER),
            authority=authority.certificate.public_bytes(Encoding.DER),
            sealing=self._office.sealing.public,
        )
        payload = enrolment_messages.certificate_payload(answer)
        return self._office.signer.sign(enrolment_messages.CERTIFICATE_TYPE, payload)

    def _refused(self, request: Enrolment, reason: str, failed: tuple[Check, ...], now: int) -> RefusedError:
        """Write down who was not let in; only holders of a token get that far."""
        self._store.record(
            Entry(
                number=0,
                at=now,
                kind=DECISION,
                act="denied",
                who=Actor(role="owner", name=printable(request.machine), key=hashlib.sha256(request.owner).hexdigest()),
                machine=request.machine,
                reason=reason,
                checks=failed[:_MOST_FAILED],
                facts={"token-sha256": hashlib.sha256(request.token).hexdigest()},
            )
        )
        return RefusedError(f"the machine's keys do not hold: {reason}", tampered=True)


def _seed_size(ek: bytes) -> int:
    try:
        return credential.seed_size(tpm_public.parse(ek, "the endorsement key"))
    except TamperingError:  # which the first check says
        return 0


def _evidence(request: Enrolment) -> KeyEvidence:
    return KeyEvidence(
        ek=request.ek,
        ak=request.ak,
        ak_name=request.ak_name,
        under_ek=request.under_ek,
        certificates=request.certificates,
    )
