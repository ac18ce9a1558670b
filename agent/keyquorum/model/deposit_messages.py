# SPDX-License-Identifier: Apache-2.0
"""What an owner and a custodian say about deposits (docs/custodian.md §11.3): strict readers and writers for both ends.

What the owner says is the payload of a DSSE envelope, and so is the acknowledgement. The release policy and the
reference values travel beside the deposit, which has their hashes: each is an envelope of its own.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import fragment_name, message_fields, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.message_fields import MAX_BODY, VERSION
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPOSIT_TYPE = "application/vnd.keyquorum.deposit.v1+json"
RETIREMENT_TYPE = "application/vnd.keyquorum.retirement.v1+json"
ACKNOWLEDGEMENT_TYPE = "application/vnd.keyquorum.acknowledgement.v1+json"
KEM = "x-wing"
RECORDED, WITNESSED = "recorded", "witnessed"
_DOMAIN = b"keyquorum/v1/deposit"
_MAX_NAME = 128
_MAX_MACHINE = 64
_ENC = 1120
_CIPHERTEXT = 48  # an identity and a tag
_WHAT, _RETIREMENT, _ANSWER = "the deposit", "the retirement", "the custodian's acknowledgement"


class SealedIdentity(Record):
    """An identity sealed by HPKE to a custodian's sealing key (X-Wing)."""

    enc: bytes
    ciphertext: bytes

    def serialise(self) -> bytes:
        """Write the form in which a store keeps it."""
        return strict_json.serialise(_sealed_table(self))


class DepositRequest(Record):
    """A deposit. `owner` is the Ed25519 key (32 bytes) of who signs it; `sealed` None replaces the rest only.

    `policy` and `reference` are the SHA-256 of the envelopes in canonical JSON.
    """

    custodian: str
    owner: bytes
    machine: str
    fragment: FragmentName
    sealed: SealedIdentity | None
    policy: bytes
    reference: bytes


class Retirement(Record):
    """The end of this epoch of the fragment's set and all before it."""

    custodian: str
    owner: bytes
    fragment: FragmentName


class Acknowledgement(Record):
    """What the custodian wrote down: `request` is the SHA-256 of the payload that was signed."""

    custodian: str
    request: bytes
    number: int
    state: str


def sealing_info(custodian: str, machine: str, fragment: FragmentName) -> bytes:
    """Return HPKE's `info` of a deposit: it opens for this machine and fragment at this custodian only."""
    bound = {"custodian": custodian, "machine": machine, **fragment.to_json()}
    return _DOMAIN + b"\x00" + strict_json.serialise(bound)


def deposit_payload(request: DepositRequest) -> bytes:
    """Write what an owner signs as `DEPOSIT_TYPE`."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": request.custodian,
            "owner": request.owner.hex(),
            "machine": request.machine,
            **request.fragment.to_json(),
            "sealed": None if request.sealed is None else _sealed_table(request.sealed),
            "policy": request.policy.hex(),
            "reference": request.reference.hex(),
        }
    )


def parse_deposit(payload: bytes) -> DepositRequest:
    """Read it; raises `TamperingError`."""
    fields = message_fields.read(payload, _WHAT)
    found = DepositRequest(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        owner=fields.hexadecimal("owner", 32),
        machine=fields.text("machine", longest=_MAX_MACHINE),
        fragment=fragment_name.take(fields),
        sealed=_take_sealed(fields),
        policy=fields.hexadecimal("policy", 32),
        reference=fields.hexadecimal("reference", 32),
    )
    fields.finish()
    return found


def parse_sealed(data: bytes) -> SealedIdentity:
    """Read the form in which a store keeps it; raises `TamperingError`."""
    table = Fields(strict_json.parse(data, _WHAT, MAX_BODY, TamperingError), _WHAT, TamperingError, "sealed")
    return _sealed(table)


def _take_sealed(fields: Fields) -> SealedIdentity | None:
    if not fields.has("sealed"):
        fields.take("sealed")
        return None
    return _sealed(fields.table("sealed"))


def _sealed(table: Fields) -> SealedIdentity:
    table.choice("kem", (KEM,))
    found = SealedIdentity(enc=table.data("enc", size=_ENC), ciphertext=table.data("ct", size=_CIPHERTEXT))
    table.finish()
    return found


def _sealed_table(sealed: SealedIdentity) -> dict[str, str]:
    return {
        "kem": KEM,
        "enc": strict_json.to_base64(sealed.enc),
        "ct": strict_json.to_base64(sealed.ciphertext),
    }


def deposit_body(envelope: dict[str, Any], policy: dict[str, Any], reference: dict[str, Any]) -> bytes:
    """Write the whole request: three envelopes."""
    return strict_json.serialise({"envelope": envelope, "policy": policy, "reference": reference})


def parse_deposit_body(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Take a request apart: the envelope, not verified yet, then policy and reference values in canonical JSON."""
    fields = Fields.read(data, _WHAT, MAX_BODY, TamperingError)
    envelope = fields.raw_table("envelope")
    others = [strict_json.serialise(fields.raw_table(name)) for name in ("policy", "reference")]
    fields.finish()
    return envelope, others[0], others[1]


def retirement_payload(request: Retirement) -> bytes:
    """Write what an owner signs as `RETIREMENT_TYPE`."""
    table = {"version": VERSION, "custodian": request.custodian, "owner": request.owner.hex()}
    return strict_json.serialise(table | request.fragment.to_json())


def parse_retirement(payload: bytes) -> Retirement:
    """Read it; raises `TamperingError`."""
    fields = message_fields.read(payload, _RETIREMENT)
    found = Retirement(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        owner=fields.hexadecimal("owner", 32),
        fragment=fragment_name.take(fields),
    )
    fields.finish()
    return found


def acknowledgement_payload(answer: Acknowledgement) -> bytes:
    """Write what a custodian signs as `ACKNOWLEDGEMENT_TYPE`."""
    return strict_json.serialise(
        {
            "version": VERSION,
            "custodian": answer.custodian,
            "request": answer.request.hex(),
            "number": answer.number,
            "state": answer.state,
        }
    )


def parse_acknowledgement(payload: bytes, custodian: str, request: bytes) -> Acknowledgement:
    """Read a custodian's acknowledgement of `request` (SHA-256); raises `TamperingError` for another's."""
    fields = message_fields.read(payload, _ANSWER)
    found = Acknowledgement(
        custodian=fields.text("custodian", longest=_MAX_NAME),
        request=fields.hexadecimal("request", 32),
        number=fields.integer("number", 0, 1 << 53),
        state=fields.choice("state", (RECORDED, WITNESSED)),
    )
    fields.finish()
    if (found.custodian, found.request) != (custodian, request):
        raise TamperingError(_ANSWER, "request", "is another custodian's, or to another request")
    return found
