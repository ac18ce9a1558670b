# SPDX-License-Identifier: Apache-2.0
"""How often a boot that waits at its prompt asks again (docs/boot.md §9)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keyquorum import settings
from keyquorum.holders.contract import Tuning
from keyquorum.linux import boot_record, cryptsetup
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model.report import Report
from keyquorum.process import TerminatedError
from keyquorum.unlock import linger
from keyquorum.unlock.arguments import Arguments
from keyquorum.unlock.gather import Context
from keyquorum.unlock.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable


class Night:
    """An hour at the prompt: a clock that only waiting moves, and devices that come at given seconds."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, devices: tuple[float, ...] = (), opened_at: float = 3600
    ) -> None:
        self.now, self.attempts, self._devices = 0.0, list[float](), devices
        self.patience: list[float] = []
        self.opened = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(linger, "DeviceEvents", lambda: self)
        monkeypatch.setattr(cryptsetup, "is_active", lambda _name: self.now >= opened_at)
        monkeypatch.setattr(Proxy, "unlock", self._unlock())

    def wait(self, seconds: float) -> bool:
        coming = [at for at in self._devices if self.now < at <= self.now + seconds]
        self.now = coming[0] if coming else self.now + seconds
        return bool(coming)

    def failing(self, monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
        """Have every attempt end by `fault` from now on."""

        def unlock(_proxy: Any) -> Report:
            self.attempts.append(self.now)
            raise fault

        monkeypatch.setattr(Proxy, "unlock", unlock)

    def _unlock(self) -> Callable[[Any], Report]:
        def unlock(proxy: Any) -> Report:
            self.patience.append(proxy.settings.holder_timeout)
            assert proxy.wait_for_custodians
            assert not proxy.arguments.prompt, "nobody is asked while the ordinary prompt is up"
            self.attempts.append(self.now)
            return Report(
                command="unlock",
                device="/dev/vda",
                volume="",
                name="root",
                outcome="failed",
                exit_code=3,
                missing=1,
                verdicts=(),
            )

        return unlock

    def spend(self, *, at_once: bool = False) -> list[float]:
        linger._watch(proxy(), at_once=at_once)
        return self.attempts


def proxy() -> Proxy:
    context = Context(answers=LocalAnswers(), tuning=Tuning(), now=0, tell=lambda _verdict: None)
    words = Arguments(device="/dev/vda", name="root")
    return Proxy(arguments=words, settings=settings.parse(""), context=context, warn=lambda _line: None, begin=None)


def test_without_devices_it_becomes_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Night(monkeypatch).spend()
    assert attempts[:5] == [5, 15, 35, 65, 95]
    assert len(attempts) < 130


def test_a_holder_that_is_always_slow_gets_more_time_than_before_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came too late is asked from the beginning, so the same time again would never be enough."""
    night = Night(monkeypatch)
    night.spend()
    assert proxy().settings.holder_timeout == 5
    assert night.patience[:4] == [10, 20, 30, 30]


def test_with_custodians_the_first_attempt_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Night(monkeypatch).spend(at_once=True)[:5] == [0, 5, 15, 35, 65]


def test_a_device_is_asked_at_once_and_makes_it_frequent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Night(monkeypatch, devices=(1000.0,)).spend()
    at = attempts.index(1000.0)
    assert [later - 1000.0 for later in attempts[at + 1 : at + 4]] == [5, 15, 35]


def test_it_ends_soon_after_somebody_opened_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(monkeypatch, opened_at=301)
    night.spend()
    assert night.now <= 306


def test_a_fault_of_one_attempt_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(boot_record, "to_kernel_log", said.append)
    night = Night(monkeypatch, opened_at=100)
    night.failing(monkeypatch, OSError(24, "a message that might hold data"))
    assert night.spend() == [5, 15, 35, 65, 95]
    assert len(said) == 5
    assert "a fault in keyquorum itself: OSError at test_linger.py" in said[0]
    assert "might hold" not in said[0]


@pytest.mark.parametrize("end", [None, TerminatedError(), MemoryError()])
def test_the_note_of_the_process_goes_whatever_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: BaseException | None
) -> None:
    """The script that reads it would end another process by then."""

    def watch(_proxy: Proxy, *, at_once: bool = False) -> None:
        assert (tmp_path / "root.pid").read_text() == f"{os.getpid()}\n"
        if end is not None:
            raise end

    monkeypatch.setattr(linger, "PID_FILES", str(tmp_path))
    monkeypatch.setattr(linger, "_watch", watch)
    if end is None:
        linger.linger(proxy())
    else:
        with pytest.raises(type(end)):
            linger.linger(proxy())
    assert list(tmp_path.iterdir()) == []


def test_an_order_to_end_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(monkeypatch)
    night.failing(monkeypatch, TerminatedError())
    with pytest.raises(TerminatedError):
        night.spend()
    assert len(night.attempts) == 1
