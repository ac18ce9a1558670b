# SPDX-License-Identifier: Apache-2.0
"""A root volume that opens from its fragments at boot, and what a person sees when it does not."""

import json

from boots.enrolled import NAME, OPENED, PROMPT, Scene


def test_root_opens_from_its_fragments_without_a_prompt(scene: Scene) -> None:
    with scene.machine() as vm:
        vm.wait_console(OPENED)
        vm.wait_boot()
        assert PROMPT not in vm.console_text()
        report = json.loads(vm.get(f"/run/keyquorum/{NAME}.json"))
        assert report["outcome"] == "opened"
        table = vm.run(f"dmsetup table {NAME}").text
        assert f":64:logon:cryptsetup:{scene.luks.uuid}-d0" in table
        assert scene.luks.volume_key.hex() not in vm.run(f"dmsetup table --showkeys {NAME}").text


def test_one_fragment_is_not_enough_and_the_prompt_still_works(scene: Scene) -> None:
    del scene.disks["frag-a"], scene.disks["frag-b"]
    with scene.machine() as vm:
        vm.wait_console(r"tpm \(tpm\): valid")
        vm.wait_console(f"{NAME} stays closed: the quorum is not reached: 1 more valid fragment is needed")
        vm.wait_console(PROMPT)
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_boot()
