# SPDX-License-Identifier: Apache-2.0
"""Tasks for holders, as enrolment and the proxy make them, with answers given by the test."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyquorum.errors import UnavailableError
from keyquorum.holders.contract import OpenTask, SealTask, Subject, Tuning
from keyquorum.secret import Identity, Secret

SUBJECT = Subject(
    volume="6f1c5a3e-8f0e-4b2f-9d7a-2a4c1b0e9d11", set_id=bytes(range(16)), epoch=3, index=2, name="second"
)


class OneQuestionAtATime:
    """The parts of `holders.contract.Answers` that a single holder under test has no use for."""

    def offer(self, name: str, answer: Secret) -> None:
        """Only an enrolment's proof asks for it again."""

    def introduce(self, kinds: Mapping[str, str]) -> None:
        """Only credentials are found by kind."""

    def cancel(self) -> None:
        """No question stands for longer than the call."""


@dataclass
class Given(OneQuestionAtATime):
    """Answers from a list; `asked` remembers the questions. `stored` answers need no person."""

    answers: list[bytes | None] = field(default_factory=list)
    stored: bool = False
    asked: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    offered: dict[str, bytes] = field(default_factory=dict)

    def ready(self, name: str) -> bool:
        self.names.add(name)
        return self.stored

    def ask(self, name: str, question: str) -> Secret:
        self.names.add(name)
        self.asked.append(question)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            raise UnavailableError("nothing was typed")
        return Secret.from_view(answer)

    ask_new = ask

    def offer(self, name: str, answer: Secret) -> None:
        self.offered[name] = bytes(answer.view)


def identity() -> Identity:
    return Identity.from_view(os.urandom(32))


def seal_task(options: Any, answers: Given, kept: Identity, tuning: Tuning | None = None, **changes: Any) -> SealTask:
    shown = changes.pop("shown", [])
    return SealTask(
        subject=SUBJECT.with_(**changes),
        identity=kept,
        envelope={},
        options=options,
        answers=answers,
        tuning=tuning or Tuning(),
        show=shown.append,
    )


def open_task(
    where: dict[str, Any], answers: Given, tuning: Tuning | None = None, seconds: float = 60, **changes: Any
) -> OpenTask:
    return OpenTask(
        subject=SUBJECT.with_(**changes),
        where=where,
        answers=answers,
        tuning=tuning or Tuning(),
        deadline=time.monotonic() + seconds,
    )
