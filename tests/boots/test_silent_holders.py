# SPDX-License-Identifier: Apache-2.0
"""Holders that fall silent between udev's look and ours: nobody waits who has the others, and the prompt comes (I3, I4).

What is silent stays silent until the end of the test. Nothing here is measured in seconds: "not needed" is the verdict
on a holder that nobody waited for; one that had its whole deadline "does not answer".
"""

import contextlib
import re
from collections.abc import Iterator

from boots.aftermath import (
    BEFORE_UNLOCK,
    NOT_NEEDED,
    UNAVAILABLE,
    VALID,
    nothing_left,
    opened_by_itself,
    opened_by_passphrase,
    wait_for_verdict,
)
from boots.enrolled import Scene
from guests.nbd_server import Faults, NbdServer
from guests.places import run_directory, socket_path

# The system's own udev looks at every disk again, after us, and waits for the silent one until its time-out.
UDEV = r"udev-worker|systemd-udevd"


@contextlib.contextmanager
def served(scene: Scene, name: str) -> Iterator[NbdServer]:
    """A disk of the scene behind a server that can fall silent."""
    with run_directory() as directory, NbdServer(scene.raw(name), socket_path(directory, "disk"), name=name) as server:
        scene.disks[name] = server.disk(name)
        yield server


def test_a_disk_that_falls_silent_delays_nobody(scene: Scene) -> None:
    with served(scene, "frag-a") as server, scene.machine() as vm:
        vm.wait_console(BEFORE_UNLOCK)
        server.faults = Faults(reads="silent")
        asked_before = server.requests
        told = opened_by_itself(vm)
        assert told["disk-a"].verdict == NOT_NEEDED
        assert (told["tpm"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        assert server.requests > asked_before, "the disk was never asked while it was silent"
        nothing_left(vm, but=UDEV)
        server.faults = Faults()
        nothing_left(vm)


def test_a_silent_disk_and_too_few_others_lead_to_the_prompt(scene: Scene) -> None:
    del scene.disks["frag-b"]
    with served(scene, "frag-a") as server, scene.machine() as vm:
        vm.wait_console(BEFORE_UNLOCK)
        server.faults = Faults(reads="silent")
        told = opened_by_passphrase(vm, scene.luks)
        assert told["disk-a"].verdict == UNAVAILABLE
        assert re.fullmatch(r"disk [0-9a-f-]{36} at /dev/\w+ does not answer", told["disk-a"].reason), told["disk-a"]
        wait_for_verdict(vm, "disk-a", UNAVAILABLE, told["disk-a"].reason)
        assert (told["tpm"].verdict, told["disk-b"].verdict) == (VALID, UNAVAILABLE)
        nothing_left(vm, but=UDEV)


def test_a_tpm_that_falls_silent_delays_nobody(scene: Scene) -> None:
    """The kernel keeps a process that waits for a TPM until it answers; so long, and no longer, something may stay."""
    with scene.machine() as vm:
        vm.wait_console(BEFORE_UNLOCK)
        vm.tpm.fall_silent()
        told = opened_by_itself(vm)
        assert told["tpm"].verdict == NOT_NEEDED
        assert (told["disk-a"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        vm.tpm.come_back()
        nothing_left(vm)
