# SPDX-License-Identifier: Apache-2.0
"""When keyquorumd acts, and when it keeps its hands off (docs/daemon.md §3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.daemon.waiting import (
    NEVER,
    QUIET_RETRY,
    RESUME,
    RETRY,
    WITHDRAW,
    Attempts,
    Plan,
    Unit,
    Volume,
    decide,
    waits,
)

NOT_YET = Unit()
RUNS = Unit(active="activating", sub="start", started=10.0)
FAILED = Unit(active="failed", sub="failed", started=10.0, ended=20.0, status=3)
OPENED = Unit(active="active", sub="exited", started=10.0, ended=20.0)
AT_PROMPT = Unit(active="activating", sub="start", started=21.0, pid=7)
BEFORE_PROMPT = Unit(active="activating", sub="start-pre", started=0.0)
GAVE_UP = Unit(active="failed", sub="failed", started=21.0, ended=90.0, status=1)
OPEN = Unit(active="active", sub="exited", started=21.0, ended=22.0)
CLOSED = Unit(active="inactive", sub="dead", started=21.0, ended=22.0)


def volume(unlock: Unit, prompt: Unit, **more: bool) -> Volume:
    return Volume(instance="data", unlock=unlock, prompt=prompt, **more)


def plan(found: Volume, now: float, memory: Attempts | None = None, *, device_came: bool = False) -> Plan:
    return decide((found,), {} if memory is None else {"data": memory}, now, device_came=device_came)


def words(made: Plan) -> list[str]:
    return [step.what for step in made.steps]


@pytest.mark.parametrize(
    ("unlock", "prompt", "expected"),
    [
        (FAILED, AT_PROMPT, True),
        (FAILED, GAVE_UP, True),
        (NOT_YET, AT_PROMPT, True),
        (FAILED, OPEN, False),  # somebody typed the passphrase
        (FAILED, CLOSED, False),  # somebody closed it
        (FAILED, NOT_YET, False),  # noauto
        (RUNS, BEFORE_PROMPT, False),
        (RUNS, AT_PROMPT, False),
        (OPENED, AT_PROMPT, False),
        (OPENED, OPEN, False),
        (NOT_YET, NOT_YET, False),
    ],
)
def test_who_waits(unlock: Unit, prompt: Unit, expected: bool) -> None:
    assert waits(volume(unlock, prompt)) is expected


@pytest.mark.parametrize("prompt", [OPEN, CLOSED, NOT_YET])
@pytest.mark.parametrize("unlock", [FAILED, OPENED, NOT_YET, RUNS])
def test_nothing_is_done_for_a_volume_that_does_not_wait(unlock: Unit, prompt: Unit) -> None:
    assert words(plan(volume(unlock, prompt), 1000.0, device_came=True)) == []


def test_a_device_brings_a_try_at_once() -> None:
    made = plan(volume(FAILED, AT_PROMPT), 22.0, device_came=True)
    assert words(made) == [RETRY]
    assert made.memory["data"] == Attempts(count=1, last=22.0, device_came=False)


def test_but_not_sooner_than_two_seconds_after_the_last_one() -> None:
    made = plan(volume(FAILED, AT_PROMPT), 21.5, device_came=True)
    assert words(made) == []
    assert made.look_again == 22.0
    assert words(plan(volume(FAILED, AT_PROMPT), 22.0, made.memory["data"])) == [RETRY]


def test_without_a_device_it_is_tried_later_and_nobody_is_asked() -> None:
    assert words(plan(volume(FAILED, AT_PROMPT), 29.9)) == []
    assert plan(volume(FAILED, AT_PROMPT), 21.0).look_again == 30.0
    assert words(plan(volume(FAILED, AT_PROMPT), 30.0)) == [QUIET_RETRY]


@pytest.mark.parametrize(
    ("device_came", "delays"),
    [(True, [2, 4, 8, 16, 32, 60, 60]), (False, [10, 20, 40, 80, 160, 320, 600, 600])],
)
def test_delays_double_up_to_a_bound(device_came: bool, delays: list[int]) -> None:
    for count, delay in enumerate(delays):
        past = Attempts(count=count, last=100.0, device_came=device_came)
        assert plan(volume(FAILED, AT_PROMPT), 100.0, past).look_again == 100.0 + delay


def test_delays_count_from_the_end_of_the_attempt() -> None:
    late = FAILED.with_(ended=130.0)
    assert plan(volume(late, AT_PROMPT), 130.0, Attempts(count=1, last=100.0)).look_again == 150.0


@pytest.mark.parametrize("status", [2, 4])
def test_time_does_not_help_what_is_wrong(status: int) -> None:
    hopeless = volume(FAILED.with_(status=status), AT_PROMPT)
    assert plan(hopeless, 1e6).look_again == NEVER
    assert words(plan(hopeless, 1e6)) == []
    assert words(plan(hopeless, 1e6, device_came=True)) == [RETRY]


@pytest.mark.parametrize("status", [0, 1, 3, 5, 15, 130])
def test_time_may_help_the_rest(status: int) -> None:
    assert words(plan(volume(FAILED.with_(status=status), AT_PROMPT), 1e6)) == [QUIET_RETRY]


def test_a_pin_is_not_tried_again_by_the_clock() -> None:
    refused = volume(FAILED, AT_PROMPT, worth_waiting=False)
    assert plan(refused, 1e6).look_again == NEVER
    assert words(plan(refused, 1e6, device_came=True)) == [RETRY]


def test_plugging_in_devices_does_not_use_up_a_stored_pin() -> None:
    refused = volume(FAILED, AT_PROMPT, worth_waiting=False, pin_refused=True)
    now, memory, tries = 1e6, Attempts(), 0
    for _ in range(20):
        made = plan(refused, now, memory, device_came=True)
        tries += len(words(made))
        now, memory = now + 1000, made.memory["data"]
    assert tries == 2
    assert plan(refused, now, memory, device_came=True).look_again == NEVER
    assert words(plan(refused, now, device_came=True)) == [RETRY], "SIGHUP forgets"


def test_a_refusal_for_other_reasons_is_tried_with_every_device() -> None:
    refused = volume(FAILED, AT_PROMPT, worth_waiting=False)
    assert words(plan(refused, 1e6, Attempts(count=20), device_came=True)) == [RETRY]


def test_a_device_that_comes_during_an_attempt_is_remembered() -> None:
    made = plan(volume(RUNS, BEFORE_PROMPT), 15.0, device_came=True)
    assert words(made) == []
    assert made.look_again == 20.0
    again = plan(volume(FAILED.with_(ended=19.0), AT_PROMPT), 21.0, made.memory["data"])
    assert words(again) == [RETRY]


def test_an_attempt_of_ours_is_looked_at_closely() -> None:
    assert plan(volume(RUNS, AT_PROMPT), 50.0, Attempts(count=1, last=49.0)).look_again == 51.0


def test_opened_behind_the_prompt() -> None:
    late = OPENED.with_(ended=30.0)
    made = plan(volume(late, AT_PROMPT, asks=True), 31.0)
    assert words(made) == [WITHDRAW]
    assert made.memory == {}


def test_a_prompt_without_a_question_is_left_alone() -> None:
    """systemd-cryptsetup is about to see for itself that the volume is open; a restart would close it."""
    made = plan(volume(OPENED.with_(ended=30.0), AT_PROMPT), 31.0)
    assert words(made) == []
    assert made.look_again == 36.0


def test_an_ordinary_boot_is_left_alone() -> None:
    assert words(plan(volume(OPENED, AT_PROMPT, asks=True), 31.0)) == []
    assert words(plan(volume(OPENED, BEFORE_PROMPT, asks=True), 31.0)) == []


def test_a_passphrase_typed_while_we_opened_makes_systemd_fail_and_us_go_on() -> None:
    assert words(plan(volume(OPENED.with_(ended=89.0), GAVE_UP), 100.0)) == [RESUME]
    assert words(plan(volume(OPENED.with_(ended=95.0), GAVE_UP), 100.0)) == [RESUME]


def test_a_prompt_that_fails_again_is_not_started_for_ever() -> None:
    again = GAVE_UP.with_(started=100.0, ended=101.0)
    assert words(plan(volume(OPENED.with_(ended=95.0), again), 102.0)) == []


def test_success_is_forgotten() -> None:
    assert plan(volume(OPENED, OPEN), 100.0, Attempts(count=5, last=99.0, device_came=True)).memory == {}
    assert plan(volume(OPENED, OPEN), 100.0).look_again == NEVER


def test_volumes_do_not_disturb_each_other() -> None:
    other = Volume(instance="other", unlock=FAILED, prompt=AT_PROMPT)
    made = decide((volume(OPENED, OPEN), other), {}, 22.0, device_came=True)
    assert [(step.what, step.instance) for step in made.steps] == [(RETRY, "other")]


UNITS = st.builds(
    Unit,
    active=st.sampled_from(["active", "activating", "inactive", "failed", "deactivating", "reloading", "maintenance"]),
    sub=st.sampled_from(["start", "start-pre", "exited", "dead", "failed", "stop-sigterm"]),
    started=st.floats(0, 1000),
    ended=st.floats(0, 1000),
    status=st.integers(0, 255),
)
VOLUMES = st.builds(
    Volume, instance=st.just("data"), unlock=UNITS, prompt=UNITS, asks=st.booleans(), worth_waiting=st.booleans()
)
MEMORIES = st.builds(Attempts, count=st.integers(0, 10_000), last=st.floats(0, 1000), device_came=st.booleans())


@settings(deadline=None)
@given(VOLUMES, MEMORIES, st.floats(0, 2000), st.booleans())
def test_whatever_systemd_says(found: Volume, past: Attempts, now: float, device_came: bool) -> None:
    made = plan(found, now, past, device_came=device_came)
    assert len(made.steps) <= 1
    assert made.look_again > now or not waits(found)
    for step in made.steps:
        if step.what in {RETRY, QUIET_RETRY}:
            assert waits(found)
            assert now - max(past.last, found.unlock.ended) >= 2.0
        else:
            assert found.unlock.active == "active"
            assert found.prompt.active in {"activating", "failed"}
        if step.what == QUIET_RETRY:
            assert found.worth_waiting
            assert found.unlock.status not in {2, 4}
