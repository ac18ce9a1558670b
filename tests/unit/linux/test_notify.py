# SPDX-License-Identifier: Apache-2.0
"""sd_notify, against a socket of the same kind."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from keyquorum.linux import notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listener


def test_what_the_manager_hears(manager: socket.socket) -> None:
    notify.ready()
    notify.status("2 volumes, none waits")
    notify.alive()
    notify.stopping()
    assert [manager.recv(999) for _ in range(4)] == [
        b"READY=1",
        b"STATUS=2 volumes, none waits",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=",
    ]


def test_a_reload_says_when(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notify.reloading()
    said, when = manager.recv(999).decode().split("\nMONOTONIC_USEC=")
    assert said == "RELOADING=1"
    assert before <= int(when) <= time.monotonic_ns() // 1000


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    notify.ready()
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("180000000", None, 90.0),
        ("180000000", "ours", 90.0),
        ("180000000", "1", 0.0),
        ("", None, 0.0),
        ("-5", None, 0.0),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(
    usec: str, pid: str | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    assert notify.watchdog_seconds() == expected
