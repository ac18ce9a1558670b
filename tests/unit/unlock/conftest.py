# SPDX-License-Identifier: Apache-2.0
"""Scenes of gathering for the tests of this folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from unit.unlock.scene import Scene, free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyquorum.model.tree import Node


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make scenes, and see that nothing of them is left in protected memory."""
    before, made = free_memory(), list[Scene]()

    def make(policy: Node, **options: Any) -> Scene:
        made.append(Scene(monkeypatch, policy, **options))
        return made[-1]

    yield make
    for scene in made:
        scene.close()
    end = time.monotonic() + 10
    while free_memory() != before and time.monotonic() < end:
        time.sleep(0.01)  # a holder let go at the end of its test still has to wipe
    assert free_memory() == before, "secrets were left behind"
