# SPDX-License-Identifier: Apache-2.0
"""A release whose process ends between any two statements to the store, or after the last (docs/custodian.md §8.1)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from keyquorum import secret
from keyquorum.custodian import store
from keyquorum.custodian.sealing_key import SealingKey
from keyquorum.custodian.store import open_store
from keyquorum.model.deposit_messages import SealedIdentity
from keyquorum.model.release_messages import Denied, Released
from keyquorum.secret import Identity
from unit.custodian.notes import LOG
from unit.custodian.offices import NOW, Custodian, WebServer, a_desk, a_key, office, policy, reference

_TOLD, _DIED_UNTOLD = 7, -signal.SIGKILL
_MOST = 200
_AFTERWARDS = 0  # instead of a statement: when what was released is opened for the machine


class _Deadly(SealingKey):
    """The key that deposits are sealed to; whoever opens one with it is killed."""

    def __init__(self, key: SealingKey) -> None:
        self.recipient = key.recipient

    def open(self, _sealed: SealedIdentity, _info: bytes) -> Identity:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it was killed")


def released_until(custodian: Custodian, machine: WebServer, nonce: bytes, last: int) -> int:
    """Release in a process that is killed before statement `last`; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        secret.start_afresh()
        opened = open_store(custodian.path)
        opened.unsafe_without_witnesses()
        seen = 0

        def count(_statement: str) -> None:
            nonlocal seen
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

        opened._database.set_trace_callback(count)
        key = _Deadly(a_key()) if last == _AFTERWARDS else a_key()
        answer = a_desk(opened, office(custodian.clock, key)).release(machine.client, machine.request(nonce)).answer
        os._exit(_TOLD if isinstance(answer, Released) else 1)
    finally:
        os._exit(2)


def test_at_every_statement(tmp_path: Path) -> None:
    machine = WebServer()
    late: dict[str, Any] = {"expires": NOW + 1_000_000}
    custodian = Custodian(tmp_path, machine, policy(**late), reference(**late))
    released = ended = 0
    for last in range(_MOST):
        custodian.clock.now += 61  # the nonces of those that were killed are over
        machine.clock = machine.clock.__class__(
            reset_count=5, restart_count=1, clock=machine.clock.clock + 1, safe=True
        )
        nonce = custodian.nonce(machine)
        size = custodian.store.log.size
        ended = released_until(custodian, machine, nonce, last)
        assert ended in {_TOLD, _DIED_UNTOLD}, f"statement {last}"
        entries = [custodian.store.log.entry(number) for number in range(size, custodian.store.log.size)]
        assert [entry.act for entry in entries] in ([], ["released"]), "a decision, whole or not at all"
        released += len(entries)
        (rows,) = custodian.store._database.execute("SELECT count(*) FROM release").fetchone()
        assert rows == released, "never a release without its entry, never an entry without its release"
        assert (ended == _TOLD) <= bool(entries), "nobody was told what is not on the disk"
        spent = custodian.store._database.execute(
            "SELECT spent FROM nonce WHERE hash = ?", (bytes.fromhex(store.sha256(nonce)),)
        ).fetchone()
        assert bool(entries) <= (spent[0] is not None), "no release of a nonce that may be used again"
        if entries:
            again = custodian.desk.release(machine.client, machine.request(nonce)).answer
            assert isinstance(again, Denied)
        if ended == _TOLD:
            break
    assert ended == _TOLD, f"more than {_MOST} statements"
    assert released > 1, "one was killed after the commit and before anybody was told"
    custodian.store.examine(LOG.key).demand()
