# SPDX-License-Identifier: Apache-2.0
"""What all tests share: how long to look for what breaks a reader, and where published vectors are.

Readers are tried briefly in every run, for long in `make fuzz`, and never by the clock. Published vectors are read where
they are, in the folder `shared` beside the repository; they are not copied.
"""

from __future__ import annotations

import fcntl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

settings.register_profile("brief", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("brief"), max_examples=5_000)
settings.load_profile("brief")

VECTORS = Path(__file__).resolve().parents[1].parent / "shared" / "vectors"


@contextmanager
def _alone(with_what: str) -> Iterator[None]:
    """Keep out the same block of every other process: this host's kernel has some things but once."""
    with open(Path(tempfile.gettempdir()) / f"keyquorum-tests-{with_what}", "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def console_level() -> Iterator[None]:
    """Nobody else changes which of the kernel's messages its console shows."""
    with _alone("console-level"):
        yield


@pytest.fixture
def announcements() -> Iterator[None]:
    """Nobody else has the kernel announce devices."""
    with _alone("announcements"):
        yield


@pytest.fixture
def vectors() -> Callable[[str], Path]:
    """Give the path of a vector file; fail, naming what is missing, when it is not there."""

    def find(name: str) -> Path:
        if not VECTORS.is_dir():
            pytest.fail(f"the folder {VECTORS} with the published vectors is missing; this test cannot run without it")
        path = VECTORS / name
        if not path.exists():
            pytest.fail(f"the published vector {name} is missing in {VECTORS}")
        return path

    return find
