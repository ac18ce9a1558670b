# SPDX-License-Identifier: Apache-2.0
"""A nonce is spent in the transaction that decides about its request, whatever happened before (docs/custodian.md §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyquorum.custodian.decision import Desk
from keyquorum.model.release_messages import Denied, Released
from unit.custodian.offices import NOW, Custodian, WebServer

APPRAISE = "keyquorum.custodian.appraisal.appraise"


@pytest.fixture
def machine() -> WebServer:
    return WebServer()


@pytest.fixture
def custodian(tmp_path: Path, machine: WebServer) -> Custodian:
    return Custodian(tmp_path, machine)


def test_of_two_who_show_one_nonce_at_the_same_time_one_is_released(
    custodian: Custodian, machine: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found it unspent before their evidence was judged; the transaction decides."""
    request = machine.request(custodian.nonce(machine))
    prepare, said = Desk._prepare, []

    def overtaken(desk: Desk, *words: Any) -> None:
        prepare(desk, *words)
        monkeypatch.setattr(Desk, "_prepare", prepare)
        said.append(custodian.desk.release(machine.client, request).answer)

    monkeypatch.setattr(Desk, "_prepare", overtaken)
    late = custodian.desk.release(machine.client, request).answer
    assert isinstance(said[0], Released)
    assert isinstance(late, Denied)
    assert (late.check, late.actual) == ("nonce", f"spent at {NOW}")


def test_a_request_that_the_custodian_fails_at_spends_its_nonce(
    custodian: Custodian, machine: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(*_: Any) -> None:
        raise ZeroDivisionError

    request = machine.request(custodian.nonce(machine))
    with monkeypatch.context() as broken:
        broken.setattr(APPRAISE, worse)
        with pytest.raises(ZeroDivisionError):
            custodian.desk.release(machine.client, request)
    again = custodian.desk.release(machine.client, request).answer
    assert isinstance(again, Denied)
    assert (again.check, again.actual) == ("nonce", f"spent at {NOW}")


def test_no_evidence_is_judged_for_a_nonce_that_counts_for_nothing(
    custodian: Custodian, machine: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(APPRAISE, lambda *_: pytest.fail("it was judged"))
    answer = custodian.desk.release(machine.client, machine.request(bytes(32))).answer
    assert isinstance(answer, Denied)
    assert (answer.check, answer.actual) == ("nonce", "unknown")
