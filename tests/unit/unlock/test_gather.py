# SPDX-License-Identifier: Apache-2.0
"""Gathering: every verdict, early stop, silence, lies, and people who are asked only when it helps (docs/boot.md §5)."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyquorum import holders
from keyquorum.errors import (
    KeyquorumError,
    QuorumNotReachedError,
    RefusedError,
    TamperingError,
    UnavailableError,
    WaitingError,
)
from keyquorum.mailbox import Mailbox
from keyquorum.model import report, tree
from keyquorum.unlock.reconstruct import rebuild_volume_key
from unit.sharing.test_tree import grow, shapes
from unit.unlock.scene import (
    DRAWER,
    FIVE,
    SHELF,
    STRANGER,
    THREE,
    absent,
    free_memory,
    hang,
    late,
    raising,
    rebuilt,
    verdicts,
)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("kinds", [{}, {1: DRAWER, 2: DRAWER, 3: DRAWER}, {2: DRAWER}])
def test_everybody_honest(scenes: Any, direct: bool, kinds: dict[int, str]) -> None:
    scene = scenes(THREE, direct=direct, kinds=kinds)
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        assert verdicts(gathering) == dict.fromkeys((1, 2, 3), report.VALID)
        assert sorted(scene.opened) == [1, 2, 3]
        assert rebuilt(scene, gathering)
        assert len(scene.told) == 3


ANSWERS: dict[str, tuple[BaseException, str, str]] = {
    "not there": (UnavailableError("no such disk", "attach it"), report.UNAVAILABLE, "no such disk"),
    "waits for a person": (WaitingError("waits for anna", "approve 7"), report.WAITING, "waits for anna"),
    "says no": (RefusedError("PCR 7 differs", "enrol again"), report.REFUSED, "PCR 7 differs"),
    "found a lie itself": (RefusedError("holds another set", tampered=True), report.TAMPERED, "holds another set"),
    "found a malformed object": (TamperingError("set", "where", "is odd"), report.TAMPERED, "set: where: is odd"),
    "has no library": (KeyquorumError("no libsodium"), report.UNAVAILABLE, "no libsodium"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_holders_no_becomes_its_verdict(scenes: Any, name: str) -> None:
    error, verdict, reason = ANSWERS[name]
    scene = scenes(THREE)
    scene.behaviours[2] = raising(error)
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        found = gathering.verdicts[1]
        assert (found.verdict, found.reason, found.hint) == (verdict, reason, getattr(error, "hint", ""))
        assert rebuilt(scene, gathering)


@pytest.mark.parametrize("error", [ValueError("0123456789abcdef"), RecursionError(), MemoryError(), OSError(5, "EIO")])
def test_a_holder_with_a_fault_costs_only_itself(
    scenes: Any, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    """The contract says that no other exception leaves a holder. If one does, it is named without its message."""
    scene = scenes(THREE)
    scene.behaviours[1] = raising(error)
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        started = time.monotonic()
        gathering.ask_unattended()
        assert time.monotonic() - started < 10
        found = gathering.verdicts[0]
        assert found.verdict == report.UNAVAILABLE
        assert found.reason.startswith(f"a fault in keyquorum itself: {type(error).__name__} at scene.py:")
        assert rebuilt(scene, gathering)
    assert capfd.readouterr() == ("", "")


def test_a_kind_that_cannot_be_loaded_costs_only_itself(scenes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A boot image without a module, or a set made by a newer program, must not stop the others (I3)."""
    for kind, module in (("absent", "keyquorum.holders.absent"), ("unknown", None)):
        scene = scenes(THREE, kinds={2: SHELF})
        placements = list(scene.volume_set.placements)
        placements[1] = placements[1].with_(kind=kind)
        scene.enrolment = scene.enrolment.with_(volume_set=scene.volume_set.with_(placements=tuple(placements)))
        if module:
            monkeypatch.setitem(holders.KINDS, kind, module)
        with contextlib.closing(scene.gathering(everyone=True)) as gathering:
            gathering.ask_unattended()
            gathering.ask_person()
            assert gathering.missing == 0
            found = gathering.verdicts[1]
            assert found.verdict == report.UNAVAILABLE
            assert kind in found.reason


def test_where_that_its_holder_cannot_read_costs_only_itself(scenes: Any) -> None:
    scene = scenes(THREE)
    placements = list(scene.volume_set.placements)
    placements[1] = placements[1].with_(where={"person": "perhaps"})
    scene.enrolment = scene.enrolment.with_(volume_set=scene.volume_set.with_(placements=tuple(placements)))
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
        assert verdicts(gathering) == {1: report.VALID, 2: report.TAMPERED, 3: report.VALID}


def test_the_quorum_ends_it(scenes: Any) -> None:
    """A silent holder costs nothing when k others answer (I3)."""
    never = threading.Event()
    scene = scenes(FIVE)
    scene.behaviours[2] = scene.behaviours[4] = hang(never)
    with contextlib.closing(scene.gathering()) as gathering:
        started = time.monotonic()
        gathering.ask_unattended()
        assert time.monotonic() - started < 10
        assert gathering.missing == 0
        found = verdicts(gathering)
        assert found == {1: report.VALID, 2: report.NOT_NEEDED, 3: report.VALID, 4: report.NOT_NEEDED, 5: report.VALID}
        assert rebuilt(scene, gathering)
    never.set()


def test_what_has_arrived_counts_when_we_wake_up_late(scenes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mailbox, "run", lambda box, work: box.put(work()))
    scene = scenes(THREE)
    with contextlib.closing(scene.gathering(holder=0.0)) as gathering:
        gathering.ask_unattended()
        assert gathering.missing == 0
        assert rebuilt(scene, gathering)


def test_silence_costs_its_own_deadline_and_is_named(scenes: Any) -> None:
    never = threading.Event()
    scene = scenes(THREE)
    scene.behaviours[1] = scene.behaviours[3] = hang(never)
    with contextlib.closing(scene.gathering(holder=3.0)) as gathering:
        started = time.monotonic()
        gathering.ask_unattended()
        assert 2.95 < time.monotonic() - started < 10
        assert verdicts(gathering) == {1: report.SILENT, 2: report.VALID, 3: report.SILENT}
        assert re.fullmatch(r"no answer in \d\.\d s", gathering.verdicts[0].reason)
        with pytest.raises(QuorumNotReachedError, match="1 more valid fragment is needed"):
            rebuild_volume_key(scene.volume_set, gathering.shares)
        gathering.ask_unattended()
        assert sorted(scene.opened) == [1, 2, 3], "who hangs is not asked again"
    never.set()


def test_who_was_silent_is_asked_again_once_the_late_answer_has_come(scenes: Any) -> None:
    gate = threading.Event()
    scene = scenes(THREE)
    scene.behaviours[1], scene.behaviours[3] = late(gate, scene.behaviours[1]), absent
    with contextlib.closing(scene.gathering(holder=0.3)) as gathering:
        gathering.ask_unattended()
        assert verdicts(gathering)[1] == report.SILENT
        gate.set()
        end = time.monotonic() + 30
        while gathering.missing and time.monotonic() < end:
            gathering.ask_unattended()
        assert verdicts(gathering)[1] == report.VALID
        assert rebuilt(scene, gathering)
    assert scene.opened.count(1) >= 2


def test_the_whole_has_an_end_too(scenes: Any) -> None:
    never = threading.Event()
    scene = scenes(THREE)
    scene.behaviours = dict.fromkeys((1, 2, 3), hang(never))
    with contextlib.closing(scene.gathering(holder=60.0, total=0.2)) as gathering:
        started = time.monotonic()
        gathering.ask_unattended()
        assert time.monotonic() - started < 10
        assert set(verdicts(gathering).values()) == {report.SILENT}
    never.set()


def test_a_share_that_comes_too_late_is_wiped_at_once(scenes: Any) -> None:
    """Also while the gathering is still open: nobody would read it any more."""
    gate = threading.Event()
    scene = scenes(THREE)
    scene.behaviours[3] = late(gate, scene.behaviours[3])
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert verdicts(gathering)[3] == report.NOT_NEEDED
        held = free_memory()
        gate.set()
        end = time.monotonic() + 10
        time.sleep(0.05)
        while free_memory() != held and time.monotonic() < end:
            time.sleep(0.01)
        assert free_memory() == held
        assert set(gathering.shares) == {1, 2}


def test_closing_wipes_what_was_gathered(scenes: Any) -> None:
    scene = scenes(THREE)
    gathering = scene.gathering()
    gathering.ask_unattended()
    kept = list(gathering.shares.values())
    assert kept
    assert not any(share.is_wiped for share in kept)
    gathering.close()
    assert all(share.is_wiped for share in kept)


def test_two_liars_beside_a_quorum_of_honest_ones(scenes: Any) -> None:
    scene = scenes(FIVE)
    other = scenes(FIVE, owner=STRANGER)
    scene.behaviours[1] = scene.giving(1, scene.fragments[2].envelope)
    scene.behaviours[5] = scene.giving(5, other.fragments[5].envelope)
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        assert verdicts(gathering) == {1: report.TAMPERED, 5: report.TAMPERED, **dict.fromkeys((2, 3, 4), report.VALID)}
        assert rebuilt(scene, gathering)


def test_one_short_of_the_quorum(scenes: Any) -> None:
    scene = scenes(FIVE)
    scene.behaviours[1] = absent
    scene.behaviours[2] = raising(RefusedError("PCR 7 differs"))
    scene.behaviours[3] = scene.giving(3, scene.fragments[4].envelope)
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert gathering.missing == 1
        with pytest.raises(QuorumNotReachedError) as caught:
            rebuild_volume_key(scene.volume_set, gathering.shares)
        assert caught.value.message == "the quorum is not reached: 1 more valid fragment is needed"


def test_nobody_there(scenes: Any) -> None:
    scene = scenes(FIVE)
    scene.behaviours = dict.fromkeys(range(1, 6), absent)
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        with pytest.raises(QuorumNotReachedError, match="3 more valid fragments are needed"):
            rebuild_volume_key(scene.volume_set, gathering.shares)


def test_who_comes_later_is_asked_again_and_who_refused_is_not(scenes: Any) -> None:
    scene = scenes(THREE)
    honest = scene.behaviours[1]
    scene.behaviours[1] = absent
    scene.behaviours[2] = raising(RefusedError("PCR 7 differs"))
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        gathering.ask_unattended()
        assert gathering.missing == 1
        assert scene.opened.count(2) == 1
        told = len(scene.told)
        assert told == 3, "the same news is told once"
        scene.behaviours[1] = honest
        gathering.ask_unattended()
        assert (gathering.missing, len(scene.told)) == (0, told + 1)
        assert scene.opened.count(3) == 1, "who gave a valid fragment is not asked again"
        assert rebuilt(scene, gathering)
        gathering.ask_unattended()
        assert scene.opened.count(1) == 3


def test_only_the_kinds_that_the_caller_wants(scenes: Any) -> None:
    scene = scenes(THREE, kinds={1: DRAWER, 2: SHELF, 3: DRAWER})
    with contextlib.closing(scene.gathering(kinds=(SHELF,))) as gathering:
        gathering.ask_unattended()
        assert scene.opened == [2]
        assert verdicts(gathering) == {1: report.NOT_ASKED, 2: report.VALID, 3: report.NOT_ASKED}
        assert gathering.verdicts[0].reason == "left out by --holder"


def test_a_nested_quorum_asks_only_where_it_helps(scenes: Any) -> None:
    # both of [1, any of [2, 3], 4]: 2 and 3 are one vote
    scene = scenes(grow((3, [None, (1, [None, None]), None])))
    gate = threading.Event()
    scene.behaviours[3] = late(gate, scene.behaviours[3])
    scene.behaviours[4] = absent
    with contextlib.closing(scene.gathering(holder=2.0)) as gathering:
        gathering.ask_unattended()
        gate.set()
        gathering.ask_unattended()
        assert scene.opened.count(3) == 1
        assert gathering.missing == 1


def test_everyone_means_everyone(scenes: Any) -> None:
    """`check` and the proof of an enrolment ask all, people included."""
    scene = scenes(FIVE, people=frozenset({4, 5}))
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        gathering.ask_person()
        assert set(verdicts(gathering).values()) == {report.VALID}
        assert scene.answers.asked == ["holder-4", "holder-5"]


def test_the_report_holds_no_secret(scenes: Any) -> None:
    scene = scenes(FIVE, kinds={2: DRAWER})
    other = scenes(FIVE, owner=STRANGER)
    scene.behaviours[3] = scene.giving(3, other.fragments[3].envelope)
    scene.behaviours[4] = raising(ValueError(bytes(scene.fragments[4].identity.view).hex()))
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        found = report.Report(
            command="check",
            device="/dev/x",
            volume=scene.volume_set.volume,
            name="",
            outcome="quorum",
            exit_code=0,
            missing=0,
            verdicts=gathering.verdicts,
        )
        text = json.dumps(found.to_json()) + repr(found) + repr(scene.told)
        secrets = [scene.plan.secret, scene.volume_key, *gathering.shares.values()]
        secrets += [planned.identity for planned in scene.plan.fragments]
        for held in secrets:
            for start in range(0, held.size - 8, 8):
                piece = bytes(held.view[start : start + 8])
                assert piece.hex() not in text.lower()
                assert repr(piece)[2:-1] not in text


def test_the_largest_policy(scenes: Any) -> None:
    scene = scenes(grow((128, [None] * 255)))
    with contextlib.closing(scene.gathering(everyone=True)) as gathering:
        gathering.ask_unattended()
        assert set(verdicts(gathering).values()) == {report.VALID}
        assert rebuilt(scene, gathering)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes(depth=3), data=st.data())
def test_it_opens_exactly_when_the_honest_ones_are_a_quorum(scenes: Any, shape: Any, data: st.DataObject) -> None:
    policy = grow(shape)
    numbers = [index for index, _, _ in tree.leaves(policy)]
    acts = {index: data.draw(st.sampled_from(["honest", "absent", "refuse", "lie"])) for index in numbers}
    scene = scenes(policy)
    for index, act in acts.items():
        if act == "absent":
            scene.behaviours[index] = absent
        elif act == "refuse":
            scene.behaviours[index] = raising(RefusedError("no"))
        elif act == "lie":
            envelope = scene.fragments[index % len(numbers) + 1].envelope
            scene.behaviours[index] = scene.giving(index, envelope if len(numbers) > 1 else {"payload": "x"})
    honest = {index for index, act in acts.items() if act == "honest"}
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert set(gathering.shares) <= honest
        if tree.satisfied(policy, honest):
            assert rebuilt(scene, gathering)
        else:
            with pytest.raises(QuorumNotReachedError):
                rebuild_volume_key(scene.volume_set, gathering.shares)
            assert gathering.missing == tree.missing(policy, honest)
    scene.close()
