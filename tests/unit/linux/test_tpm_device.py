# SPDX-License-Identifier: Apache-2.0
"""A TPM that is silent for hours: a terminal that nobody types at is as silent (docs/holders-tpm.md §3.1)."""

from __future__ import annotations

import os
import select
import time
import tty
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import UnavailableError
from keyquorum.linux import tpm_device
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = bytes.fromhex("80010000000c0000017b0008")
ANSWER = bytes.fromhex("80010000000a00000000")


@pytest.fixture(params=["tpm0", "tpmrm0"])
def chip(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """The path of a device, raw or of a resource manager, and the descriptor of the chip behind it."""
    monkeypatch.setattr(tpm_device, "_unanswered", {})
    inside, device = os.openpty()
    tty.setraw(device)
    path = tmp_path / str(request.param)
    path.symlink_to(os.ttyname(device))
    yield str(path), inside
    os.close(device)
    os.close(inside)


def ask(path: str, seconds: float = 0.05) -> int:
    with Secret(64) as response, TpmDevice(path, time.monotonic() + seconds) as device:
        return device.transmit(COMMAND, response)


def test_asking_a_silent_chip_for_ever_costs_no_more_than_asking_it_once(chip: tuple[str, int]) -> None:
    path, inside = chip
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnavailableError, match="does not answer"):
        ask(path)
    for _ in range(50):
        with pytest.raises(UnavailableError, match="still does not answer"):
            ask(path)
    assert len(os.listdir("/proc/self/fd")) <= before + 3, "the node, who waits for it, who holds it"
    assert os.read(inside, 4096) == COMMAND, "it was asked once"
    os.write(inside, ANSWER)
    with open(path, "rb", buffering=0) as device:  # a terminal passes on in its own time
        assert select.select([device], [], [], 10)[0]
    assert ask(path, 5.0) == len(ANSWER)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_two_who_asked_a_silent_chip_at_once_give_everything_back_when_it_answers(chip: tuple[str, int]) -> None:
    path, inside = chip
    before, deadline = len(os.listdir("/proc/self/fd")), time.monotonic() + 0.05
    devices = [TpmDevice(path, deadline) for _ in range(2)]
    with Secret(64) as response:
        for device in devices:
            with device, pytest.raises(UnavailableError, match="does not answer"):
                device.transmit(COMMAND, response)
    with pytest.raises(UnavailableError, match="still does not answer"):
        ask(path)
    os.write(inside, ANSWER)
    with open(path, "rb", buffering=0) as node:
        assert select.select([node], [], [], 10)[0]
    assert ask(path, 5.0) == len(ANSWER)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_chip_that_answers_keeps_nothing(chip: tuple[str, int]) -> None:
    path, inside = chip
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        os.write(inside, ANSWER)
        assert ask(path, 5.0) == len(ANSWER)
    assert len(os.listdir("/proc/self/fd")) == before
