# SPDX-License-Identifier: Apache-2.0
"""What a machine that is being enrolled and a custodian say (docs/custodian.md §11.2): readers and writers.

The enrolment is signed by the machine's owner, what the custodian answers by the custodian (DSSE).
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import message_fields, strict_json
from keyquorum.model.deposit_messages import KEM
from keyquorum.model.fields import Fields
from keyquorum.model.message_fields import MAX_BODY, VERSION
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENROLMENT_TYPE = "application/vnd.keyquorum.machine-enrolment.v1+json"
CREDENTIAL_TYPE = "application/vnd.keyquorum.machine-credential.v1+json"
CERTIFICATE_TYPE = "application/vnd.keyquorum.machine-certificate.v1+json"
TOKEN = 16
_MAX_NAME = 128
_MAX_MACHINE = 64
_MAX_AREA = 1024
_MAX_CERTIFICATES = 8
_MAX_SIGNATURE = 256
_POSSESSION = b"keyquorum/v1/machine-tls-key"
_WHAT, _CREDENTIAL, _CERTIFICATE = "the enrolment", "the credential", "the machine's certificate"


class Enrolment(Record):
    """A machine that wants in. `owner` is the Ed25519 key (32 bytes) of who signs; `tls_key` SubjectPublicKeyInfo.

    `ek` and `ak` are TPMT_PUBLIC, `ak_name` the Name that the TPM computed, `certificates` those of the EK in DER.
    """

    custodian: str
    machine: str
    token: bytes
    owner: bytes
    tls_key: bytes
    ek: bytes
    ak: bytes
    ak_name: bytes
    under_ek: bool
    certificates: tuple[bytes, ...] = ()


class MachineCredential(Record):
    """What TPM2_ActivateCredential takes."""

    custodian: str
    machine: str
    id_object: bytes
    encrypted_secret: bytes


class MachineCertificate(Record):
    """The machine is enrolled, in entry `number`. Certificates in DER; `sealing` is the key for deposits (SPKI)."""

    custodian: str
    machine: str
    number: int
    certificate: bytes
    authority: bytes
    sealing: bytes


def enrolment_payload(request: Enrolment) -> bytes:
    """Write what an owner signs as `ENROLMENT_TYPE`."""
    base64 = strict_json.to_base64
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": request.custodian,
            "machine": request.machine,
            "token": request.token.hex(),
            "owner": request.owner.hex(),
            "tls_key": base64(request.tls_key),
            "ek": base64(request.ek),
            "ak": base64(request.ak),
            "ak_name": base64(request.ak_name),
            "under_ek": request.under_ek,
            "certificates": [base64(data) for data in request.certificates],
        }
    )


def parse_enrolment(payload: bytes) -> Enrolment:
    """Read it; raises `TamperingError`."""
    fields = message_fields.read(payload, _WHAT)
    found = Enrolment(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        machine=fields.text("machine", longest=_MAX_MACHINE),
        token=fields.hexadecimal("token", TOKEN),
        owner=fields.hexadecimal("owner", 32),
        tls_key=fields.data("tls_key", longest=_MAX_AREA),
        ek=fields.data("ek", longest=_MAX_AREA),
        ak=fields.data("ak", longest=_MAX_AREA),
        ak_name=fields.data("ak_name", longest=_MAX_NAME),
        under_ek=fields.flag("under_ek"),
        certificates=tuple(
            Fields({"certificate": row}, _WHAT, TamperingError).data("certificate")
            for row in fields.rows("certificates", most=_MAX_CERTIFICATES)
        ),
    )
    fields.finish()
    return found


def enrolment_body(envelope: dict[str, Any], answer: bytes = b"", possession: bytes = b"") -> bytes:
    """Write the whole request; `answer` is the secret that the TPM gave, both are empty the first time.

    `possession` is the TLS key's signature over `possession_message`.
    """
    table = {"answer": strict_json.to_base64(answer), "possession": strict_json.to_base64(possession)}
    return strict_json.serialise({"envelope": envelope} | table)


def parse_enrolment_body(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Take a request apart into the envelope, not verified yet, answer and possession; raises `TamperingError`."""
    fields = Fields.read(data, _WHAT, MAX_BODY, TamperingError)
    found = (
        fields.raw_table("envelope"),
        fields.data("answer", longest=64),
        fields.data("possession", longest=_MAX_SIGNATURE),
    )
    fields.finish()
    return found


def possession_message(payload: bytes, answer: bytes) -> bytes:
    """Return what a TLS key signs to show that whoever enrols has it: this enrolment, and the custodian's secret.

    Both are in it because the payload's token is chosen before, by an operator, and the secret is not known before.
    """
    return _POSSESSION + b"\x00" + len(answer).to_bytes(2, "big") + answer + payload


def credential_payload(answer: MachineCredential) -> bytes:
    """Write what a custodian signs as `CREDENTIAL_TYPE`."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": answer.custodian,
            "machine": answer.machine,
            "id_object": strict_json.to_base64(answer.id_object),
            "encrypted_secret": strict_json.to_base64(answer.encrypted_secret),
        }
    )


def parse_credential(payload: bytes, custodian: str, machine: str) -> MachineCredential:
    """Read a credential of `custodian` for `machine`; raises `TamperingError`."""
    fields = message_fields.read(payload, _CREDENTIAL)
    found = MachineCredential(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        machine=fields.text("machine", longest=_MAX_MACHINE),
        id_object=fields.data("id_object", longest=_MAX_AREA),
        encrypted_secret=fields.data("encrypted_secret", longest=_MAX_AREA),
    )
    fields.finish()
    _demand_ours(_CREDENTIAL, (found.custodian, found.machine), (custodian, machine))
    return found


def certificate_payload(answer: MachineCertificate) -> bytes:
    """Write what a custodian signs as `CERTIFICATE_TYPE`."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": answer.custodian,
            "machine": answer.machine,
            "number": answer.number,
            "certificate": strict_json.to_base64(answer.certificate),
            "authority": strict_json.to_base64(answer.authority),
            "sealing": {"kem": KEM, "key": strict_json.to_base64(answer.sealing)},
        }
    )


def parse_certificate(payload: bytes, custodian: str, machine: str) -> MachineCertificate:
    """Read the end of an enrolment at `custodian` of `machine`; raises `TamperingError`."""
    fields = message_fields.read(payload, _CERTIFICATE)
    sealing = fields.table("sealing")
    sealing.choice("kem", (KEM,))
    found = MachineCertificate(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        machine=fields.text("machine", longest=_MAX_MACHINE),
        number=fields.integer("number", 0, 1 << 53),
        certificate=fields.data("certificate"),
        authority=fields.data("authority"),
        sealing=sealing.data("key"),
    )
    for fully_read in (sealing, fields):
        fully_read.finish()
    _demand_ours(_CERTIFICATE, (found.custodian, found.machine), (custodian, machine))
    return found


def _demand_ours(what: str, found: tuple[str, str], wanted: tuple[str, str]) -> None:
    if found != wanted:
        raise TamperingError(what, "", f"is of {found[0]} for {found[1]}, not of {wanted[0]} for {wanted[1]}")
