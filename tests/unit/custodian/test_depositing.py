# SPDX-License-Identifier: Apache-2.0
"""Deposits, replacements and retirements: whose they are, and what is refused before it could hurt at a boot."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from keyquorum.custodian import receipt
from keyquorum.custodian.depositing import Counter
from keyquorum.envelope import dsse
from keyquorum.envelope.signing import Owner
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, UsageError
from keyquorum.model import deposit_messages, strict_json
from keyquorum.model.deposit_messages import Acknowledgement, DepositRequest, Retirement
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.release_messages import Released
from unit.custodian.notes import FRAGMENT, LOG, ORIGIN, private
from unit.custodian.offices import FLEET, NOW, SIGNER, Custodian, WebServer, a_key, policy, reference, sealed_identity
from unit.custodian.stores import DB, OPERATOR
from unit.evidence.tpm_maker import BOOT, values_of

STRANGER = Owner(private(41))
NEXT = FRAGMENT.with_(epoch=4)


def table(envelope: bytes) -> dict[str, Any]:
    found: dict[str, Any] = strict_json.parse(envelope, "", 1 << 16, TamperingError)
    return found


def request(custodian: Custodian, fragment: FragmentName = NEXT, **changes: Any) -> DepositRequest:
    parts: dict[str, Any] = {
        "custodian": ORIGIN,
        "owner": FLEET.public.raw,
        "machine": "web-1",
        "fragment": fragment,
        "sealed": sealed_identity(custodian.sealing, fragment=fragment),
        "policy": hashlib.sha256(custodian.deposit.policy).digest(),
        "reference": hashlib.sha256(custodian.deposit.reference).digest(),
    }
    return DepositRequest(**(parts | changes))


def body(
    asked: DepositRequest, custodian: Custodian, owner: Owner = FLEET, policies: tuple[bytes, bytes] | None = None
) -> bytes:
    signed = owner.sign(deposit_messages.DEPOSIT_TYPE, deposit_messages.deposit_payload(asked))
    both = policies or (custodian.deposit.policy, custodian.deposit.reference)
    return deposit_messages.deposit_body(signed, table(both[0]), table(both[1]))


def with_policies(custodian: Custodian, one: bytes, other: bytes, **changes: Any) -> bytes:
    hashes = {"policy": hashlib.sha256(one).digest(), "reference": hashlib.sha256(other).digest()}
    return body(request(custodian, **(hashes | changes)), custodian, policies=(one, other))


def acknowledged(answer: tuple[dict[str, Any], bytes], payload: bytes) -> Acknowledgement:
    signed = dsse.verify(dsse.parse(answer[0], ""), deposit_messages.ACKNOWLEDGEMENT_TYPE, (SIGNER.public,))
    found = deposit_messages.parse_acknowledgement(signed, ORIGIN, hashlib.sha256(payload).digest())
    assert receipt.verify(answer[1], LOG.key).entry.number == found.number
    return found


def retirement(fragment: FragmentName, owner: Owner = FLEET, custodian: str = ORIGIN) -> bytes:
    payload = deposit_messages.retirement_payload(
        Retirement(custodian=custodian, owner=owner.public.raw, fragment=fragment)
    )
    return strict_json.serialise(owner.sign(deposit_messages.RETIREMENT_TYPE, payload))


def test_a_new_epoch_opens_and_the_old_one_until_it_is_retired(custodian: Custodian, machine: WebServer) -> None:
    desk, asked = Counter(custodian.store, custodian.office), request(custodian)
    answer = desk.deposit(machine.client, body(asked, custodian))
    found = acknowledged(answer, deposit_messages.deposit_payload(asked))
    assert found.state == "recorded"
    entry = custodian.store.log.entry(found.number)
    assert (entry.act, entry.who.role, entry.who.key) == (
        "deposited", "owner", hashlib.sha256(FLEET.public.raw).hexdigest(),
    )  # fmt: skip
    for fragment in (FRAGMENT, NEXT):
        said = custodian.desk.release(machine.client, machine.request(custodian.nonce(machine, fragment), fragment))
        assert isinstance(said.answer, Released)
    desk.retire(machine.client, retirement(FRAGMENT))
    said = custodian.desk.release(machine.client, machine.request(custodian.nonce(machine)))
    assert not isinstance(said.answer, Released)
    with pytest.raises(UsageError, match="epoch 3 is over"):
        desk.deposit(machine.client, body(request(custodian, FRAGMENT), custodian))


def test_policies_are_replaced_and_the_identity_stays(custodian: Custodian, machine: WebServer) -> None:
    desk = Counter(custodian.store, custodian.office)
    updated = (*BOOT, (4, 0x80000003, b"a new kernel"))
    pcrs = {str(pcr): [value.hex()] for pcr, value in values_of(updated).items()}
    new = reference(pcrs=pcrs, serial=8)
    asked = with_policies(custodian, custodian.deposit.policy, new, fragment=FRAGMENT, sealed=None)
    desk.deposit(machine.client, asked)
    assert not isinstance(custodian.ask(machine)[0].answer, Released)
    custodian.clock.now += 60
    rebooted = replace(machine, events=updated)
    assert isinstance(custodian.ask(rebooted)[0].answer, Released)
    old = with_policies(custodian, custodian.deposit.policy, reference(), fragment=FRAGMENT, sealed=None)
    with pytest.raises(UsageError, match="serial 7, and 8 was seen"):
        desk.deposit(machine.client, old)
    other = with_policies(custodian, policy(), reference(serial=8, clock="any"), fragment=FRAGMENT, sealed=None)
    with pytest.raises(UsageError, match="serial 8, and 8 was seen"):
        desk.deposit(machine.client, other)
    desk.deposit(machine.client, asked)
    with pytest.raises(UsageError, match="no such fragment"):
        desk.deposit(machine.client, with_policies(custodian, policy(), new, fragment=NEXT, sealed=None))


def test_the_owners_old_word_does_not_count_again_under_an_old_name(custodian: Custodian, machine: WebServer) -> None:
    """A machine that kept what it carried, and now finds the new policy too strict, sends the old one again."""
    desk, values = Counter(custodian.store, custodian.office), custodian.deposit.reference
    lax = policy(name="lax", serial=9)
    asked = with_policies(custodian, lax, values, fragment=FRAGMENT, sealed=None)
    desk.deposit(machine.client, asked)
    desk.deposit(machine.client, asked)
    strict = with_policies(custodian, policy(name="strict", serial=1), values, fragment=FRAGMENT, sealed=None)
    desk.deposit(machine.client, strict)
    with pytest.raises(UsageError, match="was replaced by entry"):
        desk.deposit(machine.client, asked)
    desk.deposit(machine.client, strict)
    again = with_policies(custodian, policy(name="lax", serial=10), values, fragment=FRAGMENT, sealed=None)
    desk.deposit(machine.client, again)
    assert isinstance(custodian.ask(machine)[0].answer, Released)


def refused(custodian: Custodian, machine: WebServer, asked: bytes, error: type[KeyquorumError], words: str) -> None:
    size = custodian.store.log.size
    with pytest.raises(error, match=words):
        Counter(custodian.store, custodian.office).deposit(machine.client, asked)
    assert custodian.store.log.size == size
    assert custodian.store.epochs(FRAGMENT) == (3, 1)


def test_what_is_not_whole_is_refused(custodian: Custodian, machine: WebServer) -> None:
    tampered = TamperingError
    for words, asked in {
        "signed by": body(request(custodian), custodian, STRANGER),
        "custodian: is another": body(request(custodian).with_(custodian="another.example"), custodian),
        "policy: is another": body(request(custodian, policy=bytes(32)), custodian),
        "reference: is another": body(request(custodian, reference=bytes(32)), custodian),
        "release policy: signatures": with_policies(custodian, policy(STRANGER), reference()),
        "not JSON": b"",
        "is missing": b"{}",
    }.items():
        refused(custodian, machine, asked, tampered, words)
    refused(custodian, machine, body(request(custodian, machine="db-1"), custodian), RefusedError, "for db-1 comes by")
    foreign = sealed_identity(a_key(8), fragment=NEXT)
    refused(custodian, machine, body(request(custodian, sealed=foreign), custodian), RefusedError, "not sealed to this")
    moved = sealed_identity(custodian.sealing, fragment=FRAGMENT)
    refused(custodian, machine, body(request(custodian, sealed=moved), custodian), RefusedError, "not sealed to this")


def test_policies_that_would_fail_at_the_boot_are_refused_now(custodian: Custodian, machine: WebServer) -> None:
    for words, policies in {
        "not for volume": (policy(volumes=["another"], serial=2), reference()),
        "not for machine": (policy(machines=["db-1"], serial=2), reference()),
        "release policy web expired": (policy(issued=1, expires=NOW, serial=2), reference()),
        "reference values servers expired": (policy(), reference(expires=NOW, serial=8)),
    }.items():
        refused(custodian, machine, with_policies(custodian, *policies), UsageError, words)


def test_nobody_touches_the_set_of_another_owner(custodian: Custodian, machine: WebServer) -> None:
    """Otherwise any owner could end another's epochs, or hold the place of the next one."""
    custodian.store.enrol_machine(DB, OPERATOR, NOW)
    custodian.admit("db-1", STRANGER)
    other = replace(machine, client=replace(machine.client, name="db-1", key=DB.client_key))
    desk = Counter(custodian.store, custodian.office)
    with pytest.raises(RefusedError, match="another owner's"):
        desk.retire(other.client, retirement(FRAGMENT, STRANGER))
    with pytest.raises(TamperingError, match="signed by"):
        desk.retire(other.client, retirement(FRAGMENT, FLEET))
    with pytest.raises(UsageError, match="nothing of this set"):
        desk.retire(other.client, retirement(FRAGMENT.with_(set_id=bytes(16)), STRANGER))
    theirs = policy(STRANGER, machines=["db-1"])
    values = table(reference())
    payload = dsse.parse(values, "").payload
    signed = strict_json.serialise(STRANGER.sign(dsse.parse(values, "").payload_type, payload))
    asked = request(
        custodian,
        owner=STRANGER.public.raw,
        machine="db-1",
        sealed=sealed_identity(custodian.sealing, "db-1", NEXT),
        policy=hashlib.sha256(theirs).digest(),
        reference=hashlib.sha256(signed).digest(),
    )
    with pytest.raises(RefusedError, match="another owner's"):
        desk.deposit(other.client, body(asked, custodian, STRANGER, (theirs, signed)))
    fresh = NEXT.with_(set_id=b"\x09" * 16)
    mine = asked.with_(fragment=fresh, sealed=sealed_identity(custodian.sealing, "db-1", fresh))
    desk.deposit(other.client, body(mine, custodian, STRANGER, (theirs, signed)))


def test_nobody_speaks_for_another_owner_by_naming_its_key(custodian: Custodian, machine: WebServer) -> None:
    """The field `owner` is what the store goes by, so it must be the key that signed, and no other admitted one."""
    custodian.store.enrol_machine(DB, OPERATOR, NOW)
    custodian.admit("db-1", STRANGER)
    other = replace(machine, client=replace(machine.client, name="db-1", key=DB.client_key))
    desk = Counter(custodian.store, custodian.office)
    ending = Retirement(custodian=ORIGIN, owner=FLEET.public.raw, fragment=FRAGMENT)
    forged = STRANGER.sign(deposit_messages.RETIREMENT_TYPE, deposit_messages.retirement_payload(ending))
    with pytest.raises(TamperingError, match="signed by"):
        desk.retire(other.client, strict_json.serialise(forged))
    assert custodian.store.epochs(FRAGMENT) == (3, 1)
    custodian.admit("web-1", STRANGER)
    with pytest.raises(TamperingError, match="signed by"):
        desk.deposit(machine.client, body(request(custodian), custodian, STRANGER))
    assert custodian.store.epochs(FRAGMENT) == (3, 1)


def test_a_client_that_is_no_machine_deposits_nothing(custodian: Custodian, machine: WebServer) -> None:
    desk, asked = Counter(custodian.store, custodian.office), body(request(custodian), custodian)
    for changes in ({"key": bytes(32)}, {"name": "db-1"}, {"ours": False}):
        with pytest.raises(RefusedError, match="no enrolled machine"):
            desk.deposit(replace(machine.client, **changes), asked)
    custodian.store.revoke_machine("web-1", OPERATOR, NOW, "stolen")
    with pytest.raises(RefusedError, match="no enrolled machine"):
        desk.retire(machine.client, retirement(FRAGMENT))
