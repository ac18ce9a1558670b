# SPDX-License-Identifier: Apache-2.0
"""Fragments that people hold, asked for on the console of a boot: right, wrong, and left out.

The root opens by any two of a TPM with a PIN, a passphrase and a sheet. A second volume of the same initramfs needs
nobody, and opens whatever becomes of the first.
"""

from pathlib import Path

import pytest

from boots.enrolled import NAME, OPENED, PROMPT, Scene
from boots.leftovers import assert_nothing_left, report, verdicts
from boots.two_volumes import PHRASE, PIN, SECOND, sheet, two_volumes
from guests.machine import BOOT_SECONDS, Machine

ASK_PIN = "PIN of the TPM for chip: "
ASK_PHRASE = "passphrase for phrase: "
ASK_SHEET = r"sheet paper, line 1 of 5 \(or all lines\): "
WRONG_PHRASE = r"phrase \(passphrase\): refused in .*: the passphrase for phrase is wrong"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(two_volumes(), str(tmp_path))


def answer(vm: Machine, question: str, typed: str) -> None:
    vm.wait_console(question)
    vm.type(typed + "\n")


def test_pin_and_passphrase_open_the_root_and_both_volumes_are_open(scene: Scene) -> None:
    with scene.machine() as vm:
        answer(vm, ASK_PIN, PIN)
        answer(vm, ASK_PHRASE, "batery staple")
        vm.wait_console(WRONG_PHRASE)
        answer(vm, ASK_PHRASE, PHRASE)
        vm.wait_console(OPENED)
        vm.wait_boot()
        assert verdicts(report(vm, NAME)) == {"chip": "valid", "phrase": "valid", "paper": "not needed"}
        assert report(vm, SECOND)["outcome"] == "opened"
        console = vm.console_text()
        assert f"keyquorum: {SECOND} is open" in console
        assert not [word for word in (PROMPT, PIN, "staple") if word in console], console
        for name in (NAME, SECOND):
            assert ":64:logon:cryptsetup:" in vm.run(f"dmsetup table {name}").text
            words = f"{name} is open, from 2 of 3 fragments"
            assert words in vm.run("journalctl -b -k -o cat -t keyquorum").text
            # It tells of the boot once it is ready, at its leisure.
            daemons = "journalctl -b -o cat -t keyquorum _SYSTEMD_UNIT=keyquorumd.service"
            vm.run(f"until {daemons} | grep -qF '{words}'; do sleep 0.5; done", timeout=BOOT_SECONDS)
        assert_nothing_left(vm)


def test_a_wrong_pin_is_counted_and_the_sheet_opens_the_root(scene: Scene) -> None:
    lines = sheet(scene.enrolled)
    with scene.machine() as vm:
        answer(vm, ASK_PIN, "24-hoses")
        vm.wait_console(r"chip \(tpm\): refused in .*: the PIN is wrong \(1 of \d+ wrong PINs are counted")
        answer(vm, ASK_PHRASE, PHRASE)
        answer(vm, ASK_SHEET, lines[0].lower())
        swapped = lines[1][:-1] + ("0" if lines[1][-1] != "0" else "1")
        answer(vm, r"sheet paper, line 2 of 5: ", swapped)
        answer(vm, r"sheet: line 2: does not match its check letters.*; sheet paper, line 2 of 5: ", "".join(lines[1:]))
        vm.wait_console(OPENED)
        assert PROMPT not in vm.console_text()


def test_what_nobody_knows_leaves_the_prompt(scene: Scene) -> None:
    with scene.machine() as vm:
        answer(vm, ASK_PIN, "")
        vm.wait_console(r"chip \(tpm\): unavailable in .*: nothing was typed")
        for _ in range(3):
            answer(vm, ASK_PHRASE, "who knows")
            vm.wait_console(WRONG_PHRASE)
        vm.wait_console(f"{NAME} stays closed: the quorum is not reached: 2 more valid fragments are needed")
        answer(vm, PROMPT, scene.luks.passphrase.decode())
        vm.wait_boot()
        found = report(vm, NAME)
        assert (found["outcome"], found["exit_code"]) == ("failed", 3)
        assert verdicts(found) == {"chip": "unavailable", "phrase": "refused", "paper": "not asked"}
        assert report(vm, SECOND)["outcome"] == "opened"
        assert "who knows" not in vm.console_text()
        assert_nothing_left(vm)
