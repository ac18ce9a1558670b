# SPDX-License-Identifier: Apache-2.0
"""What a service tells its manager: ready, reloading, stopping, its status in words, and that it is alive."""

from __future__ import annotations

import os
import time

from systemd import daemon  # type: ignore[attr-defined]  # its package has no types

_MICROSECONDS = 1e6


def ready() -> None:
    """Say that the service is up, at its start or after a reload."""
    _tell("READY=1")


def reloading() -> None:
    """Say that a reload began; `ready` ends it."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """Say that the service is about to end."""
    _tell("STOPPING=1\nSTATUS=")


def status(line: str) -> None:
    """Show a line in `systemctl status`."""
    _tell(f"STATUS={line}")


def alive() -> None:
    """Answer the watchdog."""
    _tell("WATCHDOG=1")


def watchdog_seconds() -> float:
    """Return how often to call `alive`, half of what the manager grants; 0.0 when it does not ask for it."""
    text, ours = os.environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if not text.isdigit() or os.environ.get("WATCHDOG_PID", ours) != ours:
        return 0.0
    return int(text) / _MICROSECONDS / 2


def _tell(state: str) -> None:
    try:
        daemon.notify(state)
    except OSError:  # the manager does not listen; it will notice by itself if that matters
        return
