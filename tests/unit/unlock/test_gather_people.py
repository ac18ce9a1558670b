# SPDX-License-Identifier: Apache-2.0
"""Gathering from people: they are asked only when it helps, again when they mistyped, and not for ever (docs/boot.md §5)."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from keyquorum.errors import RefusedError
from keyquorum.model import report
from unit.sharing.test_tree import grow
from unit.unlock.scene import FIVE, THREE, absent, late, raising, rebuilt, verdicts


def test_a_person_is_asked_only_when_needed(scenes: Any) -> None:
    scene = scenes(THREE, people=frozenset({3}))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert not gathering.person_could_help()
        gathering.ask_person()
        assert scene.answers.asked == []
        assert verdicts(gathering)[3] == report.NOT_NEEDED


def test_a_person_is_asked_when_that_reaches_the_quorum(scenes: Any) -> None:
    scene = scenes(THREE, people=frozenset({2, 3}))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert scene.opened == [1]
        assert gathering.verdicts[1].reason == "needs a person"
        assert gathering.person_could_help()
        gathering.ask_person()
        assert scene.answers.asked == ["holder-2"]
        assert verdicts(gathering) == {1: report.VALID, 2: report.VALID, 3: report.NOT_NEEDED}
        assert rebuilt(scene, gathering)


def test_a_person_is_not_bothered_when_it_cannot_help(scenes: Any) -> None:
    scene = scenes(FIVE, people=frozenset({4, 5}))
    scene.behaviours = dict.fromkeys((1, 2, 3), absent) | {4: scene.behaviours[4], 5: scene.behaviours[5]}
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert not gathering.person_could_help()
        gathering.ask_person()
        assert scene.answers.asked == []


def test_a_person_who_fails_is_not_followed_by_questions_that_cannot_help(scenes: Any) -> None:
    scene = scenes(THREE, people=frozenset({2, 3}))
    scene.behaviours[1] = absent
    scene.behaviours[2] = raising(RefusedError("wrong PIN"))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert gathering.person_could_help()
        gathering.ask_person()
        assert scene.answers.asked == ["holder-2"]
        assert verdicts(gathering) == {1: report.UNAVAILABLE, 2: report.REFUSED, 3: report.NOT_ASKED}


def test_a_question_that_was_passed_over_is_not_hoped_for_any_more(scenes: Any) -> None:
    """Whoever answers a PIN with Enter is not asked for a sheet that reaches nothing without it."""
    scene = scenes(FIVE, people=frozenset({1, 2, 3, 4, 5}))
    scene.behaviours |= dict.fromkeys((1, 2, 3), absent)
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_person()
        assert scene.answers.asked == ["holder-1", "holder-2", "holder-3"]


def test_a_person_is_not_asked_for_a_vote_that_is_cast(scenes: Any) -> None:
    # both of [any of [2 people], 3]: after the first person the second one's answer changes nothing
    scene = scenes(grow((2, [(1, [None, None]), (2, [None, None])])), people=frozenset({1, 2, 3, 4}))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
        assert scene.answers.asked == ["holder-1", "holder-3", "holder-4"]
        assert rebuilt(scene, gathering)


def test_an_answer_that_is_here_already_bothers_nobody(scenes: Any) -> None:
    scene = scenes(THREE, people=frozenset({2, 3}))
    scene.answers.here = {"holder-3"}
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert gathering.missing == 0
        assert verdicts(gathering)[2] == report.NOT_NEEDED


def test_a_person_may_take_longer_than_a_device(scenes: Any) -> None:
    scene, gate = scenes(THREE, people=frozenset({1})), threading.Event()
    scene.behaviours[3] = absent
    scene.behaviours[1] = late(gate, scene.behaviours[1])
    threading.Timer(2.5, gate.set).start()
    with contextlib.closing(scene.gathering(holder=2.0)) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
        assert verdicts(gathering)[1] == report.VALID


def test_a_question_nobody_answers_ends_and_is_withdrawn(scenes: Any) -> None:
    scene, gate = scenes(THREE, people=frozenset({1})), threading.Event()
    scene.behaviours[3] = absent
    scene.behaviours[1] = late(gate, scene.behaviours[1])
    gathering = scene.gathering(person=0.1)
    gathering.ask_unattended()
    gathering.ask_person()
    assert verdicts(gathering)[1] == report.SILENT
    gathering.close()
    assert scene.answers.cancelled == 1
    gate.set()


@pytest.mark.parametrize(("slips", "outcome"), [(1, report.VALID), (2, report.VALID), (3, report.REFUSED)])
def test_a_mistyped_answer_is_asked_for_again(scenes: Any, slips: int, outcome: str) -> None:
    scene = scenes(THREE, people=frozenset({1}))
    scene.behaviours[3] = absent
    right, left = scene.behaviours[1], [slips]

    def typing(task: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RefusedError("wrong", mistyped=True)
        return right(task)

    scene.behaviours[1] = typing
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
        assert verdicts(gathering)[1] == outcome
    assert scene.answers.asked == ["holder-1"] * min(slips + 1, 3)
    told = [verdict.verdict for verdict in scene.told if verdict.index == 1]
    assert told == [report.REFUSED] * slips + [report.VALID] * (slips < 3), "each slip is told"


def test_a_refused_pin_is_not_asked_for_again(scenes: Any) -> None:
    scene = scenes(THREE, people=frozenset({1}))
    scene.behaviours[3] = absent
    scene.behaviours[1] = raising(RefusedError("wrong PIN, 2 tries left"))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
    assert scene.answers.asked == ["holder-1"]
