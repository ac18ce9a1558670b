# SPDX-License-Identifier: Apache-2.0
"""What owners ask of a custodian, from the signature to the acknowledgement (docs/custodian.md §11.3).

Whatever would make the machine fail at its next boot is refused now, while somebody sees it: a policy that cannot be
read, that is not for this machine, or is over, and a sealed identity that does not open.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, policy_format
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.group_commit import receipt_of
from keyquorum.custodian.store import Deposit
from keyquorum.custodian.store_deposits import Deposits, Serial
from keyquorum.envelope import dsse
from keyquorum.errors import RefusedError, TamperingError, UsageError
from keyquorum.evidence import reference_values
from keyquorum.model import deposit_messages, strict_json
from keyquorum.model.deposit_messages import RECORDED, Acknowledgement, SealedIdentity
from keyquorum.model.message_fields import MAX_BODY

if TYPE_CHECKING:
    from typing import Any

    from keyquorum.custodian.decision import Client, Office
    from keyquorum.custodian.entry import Entry
    from keyquorum.custodian.store import Store
    from keyquorum.envelope.dsse import PublicKey
    from keyquorum.evidence.signed_policy import Versioned
    from keyquorum.model.deposit_messages import DepositRequest

_WHAT, _POLICY, _REFERENCE = "the deposit", "the release policy", "the reference values"
_MAX_ENVELOPE = 64 * 1024


class Counter:
    """Where one thread takes deposits, with a store of its own."""

    def __init__(self, store: Store, office: Office) -> None:
        self._store, self._office = store, office
        self._deposits = Deposits(store)

    def deposit(self, client: Client, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Take a deposit, or replace the policies of one; return the signed acknowledgement and its receipt.

        Raises `TamperingError` for what is not signed or not whole, `RefusedError` for what is not this owner's,
        `UsageError` for what the store forbids.
        """
        envelope, policy, reference = deposit_messages.parse_deposit_body(body)
        payload = self._verified(client, envelope, deposit_messages.DEPOSIT_TYPE)
        request = deposit_messages.parse_deposit(payload)
        _demand_own_word(envelope, deposit_messages.DEPOSIT_TYPE, request.owner)
        self._demand_here(request.custodian)
        if request.machine != client.name:
            raise RefusedError(f"a deposit for {request.machine} comes by that machine, not by {client.name}")
        for name, expected, found in (("policy", request.policy, policy), ("reference", request.reference, reference)):
            if hashlib.sha256(found).digest() != expected:
                raise TamperingError(_WHAT, name, "is another one than was signed")
        owner, now = dsse.PublicKey(raw=request.owner), self._office.now()
        serials = (_release_policy(policy, owner, request, now), _reference(reference, owner, now))
        sealed = b"" if request.sealed is None else self._tried(request, request.sealed)
        offered = Deposit(request.fragment, request.machine, sealed, policy, reference)
        act = self._deposits.replace if request.sealed is None else self._deposits.deposit
        return self._acknowledge(payload, act(offered, _owner(client, request.owner), now, serials))

    def retire(self, client: Client, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Give up an epoch; as `deposit`."""
        table = strict_json.parse(body, _WHAT, MAX_BODY, TamperingError)
        payload = self._verified(client, table, deposit_messages.RETIREMENT_TYPE)
        request = deposit_messages.parse_retirement(payload)
        _demand_own_word(table, deposit_messages.RETIREMENT_TYPE, request.owner)
        self._demand_here(request.custodian)
        found = self._deposits.retire(request.fragment, _owner(client, request.owner), self._office.now())
        return self._acknowledge(payload, found)

    def _verified(self, client: Client, envelope: object, kind: str) -> bytes:
        """Return the payload if an owner signed it who is admitted for the machine that the connection is of."""
        machine = self._store.machine_of(client.key)
        if machine is None or machine.revoked or machine.name != client.name or not client.ours:
            raise RefusedError("this client is no enrolled machine")
        owners = tuple(dsse.PublicKey(raw=key) for key in self._deposits.admitted(machine.name))
        return dsse.verify(dsse.parse(envelope, _WHAT), kind, owners)

    def _demand_here(self, custodian: str) -> None:
        if custodian != self._office.origin:
            raise TamperingError(_WHAT, "custodian", f"is {custodian}, not {self._office.origin}")

    def _tried(self, request: DepositRequest, sealed: SealedIdentity) -> bytes:
        info = deposit_messages.sealing_info(self._office.origin, request.machine, request.fragment)
        self._office.sealing.open(sealed, info).wipe()
        return sealed.serialise()

    def _acknowledge(self, payload: bytes, found: Entry) -> tuple[dict[str, Any], bytes]:
        answer = Acknowledgement(
            custodian=self._office.origin,
            request=hashlib.sha256(payload).digest(),
            number=found.number,
            state=RECORDED,
        )
        signed = deposit_messages.acknowledgement_payload(answer)
        envelope = self._office.signer.sign(deposit_messages.ACKNOWLEDGEMENT_TYPE, signed)
        log = self._office.log
        now = checkpoint.verify(self._store.sign_checkpoint(log), log.key).checkpoint
        return envelope, receipt_of(self._store, found.number, now.size, checkpoint.sign(now, log))


def _demand_own_word(envelope: object, kind: str, owner: bytes) -> None:
    """Raise `TamperingError` unless the owner that the message names signed it: one does not speak for another."""
    dsse.verify(dsse.parse(envelope, _WHAT), kind, (dsse.PublicKey(raw=owner),))


def _owner(client: Client, key: bytes) -> Actor:
    return Actor(role="owner", name=f"owner of {client.name}", key=hashlib.sha256(key).hexdigest())


def _payload(envelope: bytes, kind: str, owner: PublicKey, what: str) -> bytes:
    table = strict_json.parse(envelope, what, _MAX_ENVELOPE, TamperingError)
    return dsse.verify(dsse.parse(table, what), kind, (owner,))


def _release_policy(envelope: bytes, owner: PublicKey, request: DepositRequest, now: int) -> Serial:
    found = policy_format.parse(_payload(envelope, policy_format.POLICY_TYPE, owner, _POLICY))
    if request.fragment.volume not in found.volumes:
        raise UsageError(f"{_POLICY} {found.name} is not for volume {request.fragment.volume}")
    if request.machine not in found.machines:
        raise UsageError(f"{_POLICY} {found.name} is not for machine {request.machine}")
    return _serial(_POLICY, found, envelope, now)


def _reference(envelope: bytes, owner: PublicKey, now: int) -> Serial:
    found = reference_values.parse(_payload(envelope, reference_values.REFERENCE_TYPE, owner, _REFERENCE))
    return _serial(_REFERENCE, found, envelope, now)


def _serial(what: str, found: Versioned, envelope: bytes, now: int) -> Serial:
    """Return what a store remembers of a policy that counts for a while yet."""
    if found.expires <= now:
        raise UsageError(
            f"{what} {found.name} expired at {found.expires}, and now is {now}", "sign one that lasts longer"
        )
    digest = hashlib.sha256(envelope).digest()
    return Serial(kind=what.removeprefix("the "), name=found.name, serial=found.serial, hash=digest)
