# SPDX-License-Identifier: Apache-2.0
"""What tests on real volumes, tokens and chips share."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from devices.bench import PASSPHRASE, Bench
from devices.custodian_site import Running
from devices.tpm_emulator import Emulator
from keyquorum import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCKS = "/run/keyquorum"
SHARED_MEMORY = "/dev/shm"


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[str]:
    """A directory in memory, where flushing a file costs nothing; an ordinary one where there is none."""
    if not os.path.isdir(SHARED_MEMORY):
        yield str(tmp_path)
        return
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="keyquorum-test-") as path:
        yield path


@pytest.fixture
def bench(memory_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A machine with settings of its own."""
    made = Bench(memory_path)
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


@pytest.fixture
def tpm(bench: Bench) -> Iterator[Emulator]:
    """The machine's TPM, and a place for what custodians need to know of the machine."""
    with Emulator(bench.path("tpm")) as emulator:
        with open(bench.path("keyquorum.conf"), "a", encoding="utf-8") as file:
            file.write(f"tpm_device = {emulator.device}\nmachine = {bench.path('machine.json')}\n")
        yield emulator


@pytest.fixture
def custodian(bench: Bench) -> Iterator[Running]:
    """A custodian that serves."""
    with Running(bench.path("custodian")) as running:
        yield running
