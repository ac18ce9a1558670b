# SPDX-License-Identifier: Apache-2.0
"""A system without threads or descriptors to spare: a verdict on the holder that there was none for (I2)."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.model import report
from keyquorum.unlock import remote
from keyquorum.unlock.remote import Pacing
from unit.unlock.scene import FAR, THREE, rebuilt, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def pacing(monkeypatch: pytest.MonkeyPatch) -> Pacing:
    made = Pacing(lambda: 0.5)
    monkeypatch.setattr(remote, "PACING", made)
    return made


class Scarce:
    """A call that fails at its first `times`, and works from then on."""

    def __init__(self, real: Callable[..., Any], error: Exception, times: int) -> None:
        self._real, self._error, self.left = real, error, times

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            self.left -= 1
            raise self._error
        return self._real(*arguments)


def no_thread(patch: pytest.MonkeyPatch, times: int = 1) -> None:
    error = RuntimeError("can't start new thread")
    patch.setattr(_thread, "start_new_thread", Scarce(_thread.start_new_thread, error, times))


def no_descriptor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "pipe2", Scarce(os.pipe2, OSError(errno.EMFILE, "Too many open files"), 1))


@pytest.mark.parametrize(("shortage", "words"), [(no_thread, "no thread"), (no_descriptor, "Too many open files")])
def test_a_custodian_that_cannot_be_asked_is_unavailable_and_the_others_open(
    scenes: Any, monkeypatch: pytest.MonkeyPatch, pacing: Pacing, shortage: Any, words: str
) -> None:
    scene = scenes(THREE, kinds={2: FAR, 3: FAR})
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        before = len(os.listdir("/proc/self/fd"))
        shortage(monkeypatch)
        gathering.begin_custodians()
        gathering.wait_for_custodians(30.0)
        assert verdicts(gathering) == {1: report.VALID, 2: report.UNAVAILABLE, 3: report.VALID}
        assert words in gathering.verdicts[1].reason
        assert rebuilt(scene, gathering)
        assert not gathering._answering
        assert not pacing.may_ask((scene.volume_set.set_id, 2), -1e9)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_holder_here_that_no_thread_asks_is_unavailable_and_may_be_asked_again(
    scenes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes(THREE)
    no_thread(monkeypatch, times=2)
    with contextlib.closing(scene.gathering()) as gathering:
        gathering.ask_unattended()
        assert verdicts(gathering)[1] == verdicts(gathering)[2] == report.UNAVAILABLE
        assert verdicts(gathering)[3] == report.VALID
        assert "no thread" in gathering.verdicts[0].reason
        gathering.ask_unattended()
        assert rebuilt(scene, gathering)
