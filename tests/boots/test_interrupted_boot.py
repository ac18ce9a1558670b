# SPDX-License-Identifier: Apache-2.0
"""A boot that somebody interrupts by a word on the kernel command line (docs/boot.md §2)."""

from boots.enrolled import NAME, PROMPT, Scene


def test_whoever_interrupts_a_boot_needs_a_passphrase(scene: Scene) -> None:
    """All holders are there, and the shell before the root is mounted must not come with an open volume."""
    scene.cmdline += " break=premount"
    with scene.machine() as vm:
        vm.wait_console(r"\(initramfs\)")
        vm.type(f"ls /dev/mapper/{NAME}; exit\n")
        vm.wait_console(f"/dev/mapper/{NAME}: No such file or directory")
        vm.wait_console("keyquorum: not opening anything by itself in a boot with 'break=premount'")
        vm.wait_console(PROMPT)
        vm.type("not the passphrase\n")
        vm.wait_console(f"{NAME}: cryptsetup failed, bad password or options")
        vm.wait_console(PROMPT)
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_console(f"{NAME}: set up successfully")
        assert "): valid" not in vm.console_text()
