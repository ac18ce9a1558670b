# SPDX-License-Identifier: Apache-2.0
"""Custodians: asked last, beside a person, called off when not needed, and never waited for by anybody else."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.errors import RefusedError, UnavailableError
from keyquorum.model import report
from keyquorum.unlock import remote
from keyquorum.unlock.remote import Pacing
from unit.sharing.test_tree import grow
from unit.unlock.scene import FAR, FIVE, THREE, absent, hang, late, raising, rebuilt, verdicts

if TYPE_CHECKING:
    from keyquorum.holders.contract import Held, OpenTask

TWO_OF_FOUR = grow((2, [None] * 4))


@pytest.fixture(autouse=True)
def pacing(monkeypatch: pytest.MonkeyPatch) -> Pacing:
    made = Pacing(lambda: 0.5)
    monkeypatch.setattr(remote, "PACING", made)
    return made


def ask(gathering: Any, seconds: float = 30.0) -> None:
    gathering.ask_unattended()
    gathering.begin_custodians()
    gathering.wait_for_custodians(seconds)


def test_nobody_far_is_asked_when_those_here_are_enough(scenes: Any) -> None:
    scene = scenes(THREE, kinds={3: FAR})
    with contextlib.closing(scene.gathering()) as gathering:
        ask(gathering)
        assert sorted(scene.opened) == [1, 2]
        assert verdicts(gathering)[3] == report.NOT_NEEDED


def test_a_custodian_makes_up_what_is_missing(scenes: Any) -> None:
    scene = scenes(THREE, kinds={3: FAR})
    scene.behaviours[1] = absent
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert 3 not in scene.opened, "the network comes after everything that is here"
        assert gathering.verdicts[2].reason == "is asked while the prompt stands"
        ask(gathering)
        assert verdicts(gathering) == {1: report.UNAVAILABLE, 2: report.VALID, 3: report.VALID}
        assert rebuilt(scene, gathering)


def test_the_first_of_several_is_enough_and_the_others_are_called_off(scenes: Any) -> None:
    """A silent custodian costs nothing if another answers (I3)."""
    scene, called_off = scenes(TWO_OF_FOUR, kinds={2: FAR, 3: FAR, 4: FAR}), threading.Event()

    def until_called_off(task: OpenTask) -> Held:
        poll = select.poll()
        poll.register(task.cancel, select.POLLIN)
        if poll.poll(30_000):
            called_off.set()
        raise UnavailableError("was called off")

    scene.behaviours[2] = scene.behaviours[3] = until_called_off
    gathering = scene.gathering(custodian=600.0)
    ask(gathering, 600.0)
    assert rebuilt(scene, gathering)
    gathering.close()
    assert called_off.wait(10)
    assert verdicts(gathering) == {
        1: report.VALID,
        2: report.NOT_NEEDED,
        3: report.NOT_NEEDED,
        4: report.VALID,
    }


def test_a_silent_custodian_costs_its_own_deadline(scenes: Any) -> None:
    scene, never = scenes(TWO_OF_FOUR, kinds={3: FAR, 4: FAR}), threading.Event()
    scene.behaviours |= {1: absent, 3: hang(never), 4: hang(never)}
    with contextlib.closing(scene.gathering(custodian=0.3)) as gathering:
        ask(gathering)
        assert verdicts(gathering)[3] == verdicts(gathering)[4] == report.SILENT
        assert gathering.missing == 1
        opened = list(scene.opened)
        ask(gathering)
        assert scene.opened == [*opened, 1], "who still owes an answer is not asked again"
    never.set()


def test_one_that_has_answered_is_not_asked_again_before_the_answer_is_taken(scenes: Any) -> None:
    """Each question may cost one of its releases, or a person's approval; and a pipe."""
    scene = scenes(THREE, kinds={3: FAR})
    scene.behaviours |= {1: absent, 3: absent}
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        for _ in range(3):
            gathering.begin_custodians()
            end = time.monotonic() + 10
            while 3 in gathering._answering and time.monotonic() < end:
                time.sleep(0.01)
        gathering.wait_for_custodians(10.0)
        assert scene.opened.count(3) == 1
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_late_answer_is_wiped(scenes: Any) -> None:
    scene, go = scenes(THREE, kinds={3: FAR}), threading.Event()
    scene.behaviours |= {1: absent, 3: late(go, scene.honest(3))}
    gathering = scene.gathering(custodian=0.2)
    ask(gathering)
    assert gathering.missing == 1
    go.set()
    scene.busy.wait()
    gathering.wait_for_custodians(0.5)
    assert gathering.missing == 1
    gathering.close()


def test_waiting_has_a_bound_of_its_own(scenes: Any) -> None:
    scene, never = scenes(THREE, kinds={3: FAR}), threading.Event()
    scene.behaviours |= {1: absent, 3: hang(never)}
    with contextlib.closing(scene.gathering(custodian=600.0)) as gathering:
        gathering.ask_unattended()
        gathering.begin_custodians()
        assert gathering.wait_for_custodians(0.1), "it still runs"
        assert verdicts(gathering)[3] == report.NOT_ASKED
    assert gathering.verdicts[2].reason == "was called off"
    never.set()


def test_a_person_and_a_custodian_at_once(scenes: Any) -> None:
    """The custodian answers while the question stands: the question is withdrawn and nobody has to type."""
    scene, asked = scenes(THREE, kinds={3: FAR}, people=frozenset({2})), threading.Event()
    over = threading.Event()

    def think_for_long(_task: OpenTask) -> Held:
        asked.set()
        over.wait(30)
        raise UnavailableError("nothing was typed")

    scene.behaviours |= {2: think_for_long, 3: late(asked, scene.honest(3))}
    with contextlib.closing(scene.gathering(person=600.0)) as gathering:
        gathering.ask_unattended()
        gathering.begin_custodians()
        assert gathering.person_could_help()
        gathering.ask_person()
        assert gathering.missing == 0
        assert verdicts(gathering) == {1: report.VALID, 2: report.NOT_NEEDED, 3: report.VALID}
    assert scene.answers.cancelled
    over.set()


def test_an_answer_that_came_before_the_question_withdraws_it_too(scenes: Any) -> None:
    scene, never = scenes(THREE, kinds={3: FAR}, people=frozenset({2})), threading.Event()
    scene.behaviours[2] = hang(never)
    with contextlib.closing(scene.gathering(person=60.0)) as gathering:
        gathering.ask_unattended()
        gathering.begin_custodians()
        end = time.monotonic() + 10
        while 3 in gathering._answering and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # from the end of the attempt to its box
        started = time.monotonic()
        gathering.ask_person()
        assert time.monotonic() - started < 50
        assert verdicts(gathering) == {1: report.VALID, 2: report.NOT_NEEDED, 3: report.VALID}
    never.set()


def test_a_person_is_asked_when_only_both_together_reach_it(scenes: Any) -> None:
    scene, go = scenes(FIVE, kinds={3: FAR}, people=frozenset({2})), threading.Event()
    scene.behaviours |= {4: absent, 5: absent, 3: late(go, scene.honest(3))}
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert not gathering.person_could_help()
        gathering.begin_custodians()
        assert gathering.person_could_help()
        gathering.ask_person()
        go.set()
        gathering.wait_for_custodians(30.0)
        assert rebuilt(scene, gathering)


def test_a_refusal_from_afar_does_not_spoil_what_somebody_mistyped(scenes: Any) -> None:
    scene, typed = scenes(THREE, kinds={3: FAR}, people=frozenset({2})), list[int]()

    def mistype_once(task: OpenTask) -> Held:
        typed.append(1)
        if len(typed) == 1:
            raise RefusedError("is not the passphrase", mistyped=True)
        held: Held = scene.honest(2)(task)
        return held

    scene.behaviours |= {2: mistype_once, 3: raising(RefusedError("denied"))}
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        gathering.begin_custodians()
        gathering.ask_person()
        assert len(typed) == 2
        assert rebuilt(scene, gathering)


def test_a_custodian_that_was_not_there_is_left_alone_for_a_while(scenes: Any, pacing: Pacing) -> None:
    scene = scenes(THREE, kinds={3: FAR})
    scene.behaviours |= {1: absent, 3: raising(UnavailableError("not ready", retry_after=50.0))}
    for _ in range(3):
        with contextlib.closing(scene.gathering()) as gathering:
            ask(gathering)
    assert scene.opened.count(3) == 1
    now = time.monotonic()
    assert not pacing.may_ask((scene.volume_set.set_id, 3), now + 49)
    assert pacing.may_ask((scene.volume_set.set_id, 3), now + 64)
    pacing._not_before.clear()
    with contextlib.closing(scene.gathering()) as gathering:
        ask(gathering)
    assert scene.opened.count(3) == 2


def test_no_descriptor_is_left(scenes: Any) -> None:
    scene = scenes(TWO_OF_FOUR, kinds={3: FAR, 4: FAR})
    scene.behaviours[1] = absent
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with contextlib.closing(scene.gathering()) as gathering:
            ask(gathering)
    scene.busy.wait()
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before


FRAGMENT = (bytes(16), 1)


def pauses(dice: float, *, refused: bool = False, retry_after: float = 0.0, times: int = 9) -> list[float]:
    made, found = Pacing(lambda: dice), []
    for _ in range(times):
        made.note(FRAGMENT, 0.0, refused=refused, retry_after=retry_after)
        found.append(next(at / 10 for at in range(10_000) if made.may_ask(FRAGMENT, at / 10)))
    return found


def test_pauses_grow_to_a_bound_and_differ() -> None:
    assert pauses(0.5) == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert pauses(0.0)[:2] == [2.5, 5]
    assert pauses(1.0)[-1] == 450


def test_a_refusal_makes_a_long_pause() -> None:
    assert pauses(0.5, refused=True, times=2) == [120, 120]


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_nobody_is_asked_before_he_wants_to_be(dice: float) -> None:
    assert 90 <= pauses(dice, retry_after=90, times=1)[0] <= 90 * 1.25


def test_the_first_question_is_free_and_others_fragments_too() -> None:
    made = Pacing(lambda: 0.5)
    assert made.may_ask(FRAGMENT, 0.0)
    made.note(FRAGMENT, 0.0, refused=True)
    assert not made.may_ask(FRAGMENT, 1.0)
    assert made.may_ask((bytes(16), 2), 1.0)


def test_dice() -> None:
    rolled = [remote.dice() for _ in range(200)]
    assert all(0 <= value < 1 for value in rolled)
    assert len(set(rolled)) > 190
