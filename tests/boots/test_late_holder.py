# SPDX-License-Identifier: Apache-2.0
"""A holder that comes when the prompt stands already (I3, I4; docs/boot.md §9)."""

from boots.aftermath import MISSING, VALID, nothing_left, opened_late
from boots.enrolled import NAME, PROMPT, Scene

CLOSED = f"{NAME} stays closed: the quorum is not reached: 1 more valid fragment is needed"


def test_a_disk_plugged_in_late_opens_the_volume_and_the_prompt_goes(scene: Scene) -> None:
    """No key is typed. That askpass gives the console its echo back: tests/unit/linux/test_prompt_withdrawal.py."""
    late = scene.disks.pop("frag-a")
    del scene.disks["frag-b"]
    with scene.machine() as vm:
        vm.wait_console(CLOSED)
        vm.wait_console(PROMPT)
        vm.plug(late)
        told = opened_late(vm)
        assert (told["disk-a"].verdict, told["tpm"].verdict) == (VALID, VALID)
        assert told["disk-b"].verdict in MISSING
        said = vm.run("journalctl -b -k -o cat -t keyquorum").text.splitlines()
        assert said[-2:] == [
            f"{NAME} was opened by a holder that came late",
            f"withdrawing the passphrase prompt for {NAME}",
        ]
        assert vm.console_text().count(PROMPT) == 1
        nothing_left(vm)
        processes = vm.run("ps -eo args").text
        assert "/askpass" not in processes
        assert "/scripts/local-" not in processes
