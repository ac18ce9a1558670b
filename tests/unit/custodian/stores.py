# SPDX-License-Identifier: Apache-2.0
"""Stores for the tests of a custodian: a machine, an owner, a deposit, and judges that say what they are told."""

from __future__ import annotations

import os
from collections.abc import Callable

from keyquorum.custodian import checkpoint, store
from keyquorum.custodian.checkpoint import Verified
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.store import Deposit, Machine, Store
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_releases import Ask, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.model.fragment_name import FragmentName
from unit.custodian.notes import CHECK, FRAGMENT, LOG, NOW, ORIGIN

OPERATOR = Actor(role="operator", name="anna", key="01" * 32)
OWNER_KEY = b"\x02" * 32
OWNER = Actor(role="owner", name="fleet", key=store.sha256(OWNER_KEY))
WEB = Machine(name="web-1", client_key=b"\x01" * 32, attestation_key=b"ak of web-1")
DB = Machine(name="db-1", client_key=b"\x02" * 32, attestation_key=b"ak of db-1")
SEALED = b"sealed identity of epoch %d"
POLICY = b"the signed release policy"


def asking(machine: Machine = WEB, fragment: FragmentName = FRAGMENT) -> Ask:
    return Ask(who=Actor(role="machine", name=machine.name, key=machine.client_key.hex()), fragment=fragment)


def epoch(number: int) -> FragmentName:
    return FRAGMENT.with_(epoch=number)


def offer(fragment: FragmentName = FRAGMENT, machine: str = "web-1") -> Deposit:
    return Deposit(fragment=fragment, machine=machine, sealed=SEALED % fragment.epoch, policy=POLICY)


def a_store(directory: object) -> Store:
    """A store with two machines, and one fragment deposited for the first."""
    made = store.found_store(os.path.join(str(directory), "custodian.db"), ORIGIN, OPERATOR, NOW)
    made.enrol_machine(WEB, OPERATOR, NOW)
    made.enrol_machine(DB, OPERATOR, NOW)
    for machine in (WEB, DB):
        made._database.execute("INSERT INTO owner (machine, key) VALUES (?, ?)", (machine.name, OWNER_KEY))
    Deposits(made).deposit(offer(), OWNER, NOW)
    return made


def judge(act: str = "released", within: int = 0) -> Callable[[Deposit, Standing], Verdict]:
    def said(_deposit: Deposit, _standing: Standing) -> Verdict:
        reason = "" if act == "released" else "told so"
        return Verdict(act=act, reason=reason, checks=(CHECK,), within=within)

    return said


def newest(made: Store) -> Verified:
    return checkpoint.verify(made.sign_checkpoint(LOG), LOG.key)
