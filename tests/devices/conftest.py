# SPDX-License-Identifier: Apache-2.0
"""What tests on real volumes, tokens and chips share."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from devices.bench import PASSPHRASE, Bench
from keyquorum import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCKS = "/run/keyquorum"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A machine with settings of its own."""
    made = Bench(str(tmp_path))
    made.write("key", PASSPHRASE)
    made.write(
        "keyquorum.conf",
        f"volumes = {made.path('volumes')}\nowner_key = {made.path('owner.key')}\n"
        f"reference = {made.path('reference')}\nholder_timeout = 20\nprompt_timeout = 5\n",
    )
    monkeypatch.setenv("KEYQUORUM_CONFIG", made.path("keyquorum.conf"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("KEYQUORUM_TRACE", "1")
    assert settings.load().volumes == made.path("volumes")
    yield made
    for uuid in made.volumes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{LOCKS}/{uuid}.lock")
