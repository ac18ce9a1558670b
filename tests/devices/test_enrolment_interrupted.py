# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM at the worst moments of an enrolment: it is done, or it never was (I6).

Python runs a signal's handler when a library's call has returned. The signal that comes while libcryptsetup writes is
therefore raised after the header was written.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from devices.bench import PASSPHRASE, opens_with
from devices.luks2_header import read_json
from keyquorum.enroll import seal
from keyquorum.linux import atomic_file, fragment_disk, luks_admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devices.bench import Bench

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def interrupted(real: Callable[..., Any], number: int, nth: int = 1) -> Callable[..., Any]:
    """Do the real thing, with a signal that arrives while it is done for the `nth` time."""
    calls = itertools.count(1)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        if next(calls) == nth:
            os.kill(os.getpid(), number)
        return result

    return wrapped


def untouched(bench: Bench, volume: str, disks: list[str], before: Any) -> bool:
    left = [name for name in os.listdir(bench.path("volumes")) if name.endswith(".json")]
    return read_json(volume) == before and not left and [bench.entries(disk) for disk in disks] == [()] * len(disks)


@pytest.mark.parametrize("number", SIGNALS)
def test_while_the_token_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{index}") for index in range(3)]
    monkeypatch.setattr(luks_admin, "set_token", interrupted(luks_admin.set_token, number, nth=2))
    said = bench.enroll(volume, bench.policy(disks))
    assert said.code == 130
    assert said.lines[-1] == "interrupted"
    assert bench.run("check", volume, "--json").json["outcome"] == "quorum"
    assert [len(bench.entries(disk)) for disk in disks] == [1, 1, 1]
    assert opens_with(volume, PASSPHRASE)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (luks_admin, "add_keyslot"),
        (atomic_file, "write"),
        (seal, "into_envelope_holders"),
        (fragment_disk, "write_slot"),
    ],
)
def test_before_the_token_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{index}") for index in range(3)]
    assert bench.enroll(volume, bench.policy(disks)).code == 0  # the owner's key exists from now on
    assert bench.run("unenroll", volume, "--yes").code == 0
    before = read_json(volume)
    nth = 2 if name == "add_keyslot" else 1  # the first one is on a copy of the header
    monkeypatch.setattr(module, name, interrupted(getattr(module, name), signal.SIGTERM, nth))
    said = bench.enroll(volume, bench.policy(disks), "--with-keyslot")
    if name == "write":  # the anchor's: by the time the signal counts, the token is there
        assert bench.run("check", volume).code == 0
    else:
        assert untouched(bench, volume, disks, before)
    assert said.code == 130
    assert opens_with(volume, PASSPHRASE)


def test_a_second_one_while_it_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{index}") for index in range(3)]
    before = read_json(volume)
    os.mkdir(bench.path("volumes"))
    erase = seal.erase_fragments

    def impatient(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        erase(*arguments)

    monkeypatch.setattr(seal, "erase_fragments", impatient)
    monkeypatch.setattr(seal, "into_envelope_holders", interrupted(seal.into_envelope_holders, signal.SIGINT))
    said = bench.enroll(volume, bench.policy(disks))
    assert said.code == 130
    assert untouched(bench, volume, disks, before)
    assert "taking back what was written" in said.lines


def test_while_a_volume_is_taken_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{index}") for index in range(3)]
    before = read_json(volume)
    assert bench.enroll(volume, bench.policy(disks), "--with-keyslot").code == 0
    monkeypatch.setattr(luks_admin, "remove_token", interrupted(luks_admin.remove_token, signal.SIGTERM))
    assert bench.run("unenroll", volume, "--yes").code == 130
    assert untouched(bench, volume, disks, before)
