# SPDX-License-Identifier: Apache-2.0
"""Turns at running machines: one, all, and what happens when somebody else keeps them."""

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

import pytest

from guests import turns


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Turns of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    return turns._places()


def comes_to(places: list[str], wanted: int) -> bool:
    """Whether so many are taken; what was queued for and is not wanted any more is given back a moment later."""
    end = time.monotonic() + 20
    while sum(is_taken(place) for place in places) != wanted:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_taken(place: str) -> bool:
    with open(place, "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_process_needs_one_turn_for_all_its_machines(places: list[str]) -> None:
    with turns.a_turn():
        assert comes_to(places, 1)
        with turns.a_turn():
            assert comes_to(places, 1)
        assert comes_to(places, 1)
    assert comes_to(places, 0)


def test_who_measures_has_every_turn_and_may_run_machines(places: list[str]) -> None:
    with turns.every_turn():
        assert comes_to(places, 3)
        with turns.a_turn():
            assert comes_to(places, 3)
        assert comes_to(places, 3)
    assert comes_to(places, 0)


def test_every_turn_is_not_wanted_while_holding_one(places: list[str]) -> None:
    with turns.a_turn(), pytest.raises(RuntimeError), turns.every_turn():
        pass
    assert comes_to(places, 0)


@pytest.mark.parametrize("wanted", ["a_turn", "every_turn"])
def test_patience_ends_when_somebody_keeps_a_turn(wanted: str, places: list[str]) -> None:
    with contextlib.ExitStack() as elsewhere:
        for place in places if wanted == "a_turn" else places[1:2]:
            fcntl.flock(elsewhere.enter_context(open(place, "w", encoding="ascii")), fcntl.LOCK_EX)
        start = time.monotonic()
        with getattr(turns, wanted)():
            assert time.monotonic() - start >= 0.4
            assert comes_to(places, 3)
    assert comes_to(places, 0)


def test_a_failure_gives_the_turn_back(places: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), turns.every_turn():
        1 / 0  # noqa: B018 (what fails is of no interest)
    assert comes_to(places, 0)
