# SPDX-License-Identifier: Apache-2.0
"""Who is asked when: at a boot nobody waits for the network in front of the prompt (docs/custodian.md §7, I4)."""

from __future__ import annotations

from typing import Any

import pytest

from keyquorum import settings
from keyquorum.holders.contract import Tuning
from keyquorum.linux.answers import LocalAnswers
from keyquorum.unlock.arguments import Arguments
from keyquorum.unlock.gather import Context
from keyquorum.unlock.proxy import Proxy


class Recorder:
    """A gathering that never reaches its quorum and writes down what it was told to do."""

    missing = 1

    def __init__(self, *, person: bool) -> None:
        self.did: list[str] = []
        self._person = person

    def ask_unattended(self) -> None:
        self.did.append("local")

    def begin_custodians(self) -> None:
        self.did.append("begin")

    def person_could_help(self) -> bool:
        return self._person

    def ask_person(self) -> None:
        self.did.append("person")

    def wait_for_custodians(self, _seconds: float) -> bool:
        self.did.append("wait")
        return False


@pytest.mark.parametrize(
    ("waits", "person", "expected"),
    [
        (True, False, ["local", "begin", "wait"]),
        (True, True, ["local", "begin", "begin", "person", "wait"]),
        (False, False, ["local"]),
        (False, True, ["local", "begin", "person"]),
    ],
)
def test_order(waits: bool, person: bool, expected: list[str]) -> None:
    context = Context(answers=LocalAnswers(), tuning=Tuning(), now=0, tell=lambda _verdict: None)
    proxy = Proxy(
        arguments=Arguments(device="/dev/vda", name="root", prompt=True),
        settings=settings.parse(""),
        context=context,
        warn=lambda _line: None,
        wait_for_custodians=waits,
    )
    gathering: Any = Recorder(person=person)
    proxy._gather(gathering, "root")
    assert gathering.did == expected
