# SPDX-License-Identifier: Apache-2.0
"""What another process writes counts for the next request, whatever this one has read and remembers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyquorum.custodian import receipt
from keyquorum.custodian.decision import Desk
from keyquorum.custodian.group_commit import GroupCommit
from keyquorum.custodian.store import Store, open_store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.errors import RefusedError
from keyquorum.model.release_messages import Denied, Released
from unit.custodian.notes import FRAGMENT, LOG, an_entry
from unit.custodian.offices import FLEET, NOW, Custodian, WebServer, owner_actor, policy, reference
from unit.custodian.stores import OPERATOR
from unit.evidence import tpm_maker


def current(path: str) -> Store:
    found = open_store(path)
    found.unsafe_without_witnesses()
    return found


@pytest.fixture
def machine() -> WebServer:
    return WebServer()


@pytest.fixture
def served(tmp_path: Path, machine: WebServer) -> Custodian:
    """A custodian whose desk reads, and whose writer writes, through connections of their own; both have released."""
    found = Custodian(tmp_path, machine)
    writers = GroupCommit(lambda: current(found.path), os.path.dirname(found.path), LOG)
    found.desk = Desk(current(found.path), found.office, writers)
    assert isinstance(found.ask(machine)[0].answer, Released)
    return found


@pytest.fixture
def other(served: Custodian) -> Iterator[Store]:
    """The store as another process has it open."""
    found = current(served.path)
    yield found
    found.close()


def replaced(**changes: bytes) -> Callable[[Custodian, Store], object]:
    def act(served: Custodian, other: Store) -> object:
        return Deposits(other).replace(replace(served.deposit, **changes), owner_actor(FLEET), NOW)  # type: ignore[arg-type]

    return act


OTHERS = tpm_maker.policy_table({"7": ["00" * 32]})["pcrs"]
ACTS: dict[str, Callable[[Custodian, Store], object]] = {
    "machine": lambda _served, other: other.revoke_machine("web-1", OPERATOR, NOW, "stolen"),
    "epoch": lambda _served, other: Deposits(other).retire(FRAGMENT, owner_actor(FLEET), NOW),
    "policy.machine": replaced(policy=policy(serial=2, machines=["web-2"])),
    "policy.signature": replaced(policy=b"{}"),
    "deposit.unchanged": lambda served, _other: served.store._database.execute("UPDATE deposit SET policy = x'00'"),
}


@pytest.mark.parametrize("check", ACTS)
def test_between_the_challenge_and_the_release(served: Custodian, machine: WebServer, other: Store, check: str) -> None:
    nonce = served.nonce(machine)
    ACTS[check](served, other)
    answer = served.desk.release(machine.client, machine.request(nonce)).answer
    assert isinstance(answer, Denied)
    assert answer.check == check


def test_other_reference_values_count_at_once(served: Custodian, machine: WebServer, other: Store) -> None:
    nonce = served.nonce(machine)
    replaced(reference=reference(serial=2, pcrs=OTHERS, log=None))(served, other)
    answer = served.desk.release(machine.client, machine.request(nonce)).answer
    assert isinstance(answer, Denied)
    assert not answer.check.startswith("policy.")


def test_nobody_gets_a_challenge_after_a_revocation(served: Custodian, machine: WebServer, other: Store) -> None:
    other.revoke_machine("web-1", OPERATOR, NOW, "stolen")
    with pytest.raises(RefusedError, match="revoked"):
        served.nonce(machine)
    assert served.last.act == "refused"


def test_receipts_are_of_the_log_with_what_others_wrote(served: Custodian, machine: WebServer, other: Store) -> None:
    for number in range(5):
        other.record(an_entry(0, f"of another process, {number}"))
        said, found = served.ask(machine)
        proven = receipt.verify(said.receipt, LOG.key)
        assert proven.entry == found
        assert proven.verified.checkpoint.size == served.store.size == found.number + 1
        assert proven.verified.checkpoint.root == served.store.log.root(served.store.size)
    served.store.examine(LOG.key).demand()
