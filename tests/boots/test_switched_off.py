# SPDX-License-Identifier: Apache-2.0
"""A boot in which nothing is to open by itself, by a word on the kernel command line (docs/boot.md §2)."""

from boots.enrolled import NAME, PROMPT, Scene


def test_switched_off_a_boot_is_as_without_us(scene: Scene) -> None:
    scene.cmdline += " keyquorum=off"
    with scene.machine() as vm:
        vm.wait_console("keyquorum: switched off on the kernel command line")
        vm.wait_console(PROMPT)
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_console(f"{NAME}: set up successfully")
        vm.wait_boot()
        assert not vm.run("find /run/keyquorum -type f", check=False).text
        assert "): valid" not in vm.console_text()
