# SPDX-License-Identifier: Apache-2.0
"""Whoever could write the disk while the machine was off: what was changed is named, and nothing of it is used (I5)."""

from pathlib import Path
from typing import Any

import pytest

from boots.enrolled import NAME, PROMPT, Scene
from boots.leftovers import assert_nothing_left, report
from boots.two_volumes import SECOND, SECOND_PROMPT, SECOND_UUID, two_volumes
from devices.luks2_header import read_json, rewrite

OTHER_UUID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(two_volumes(), str(tmp_path))


def token(metadata: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(t for t in metadata["tokens"].values() if t["type"] == "keyquorum")
    return found


def test_the_token_of_another_volume_and_a_null_cipher(scene: Scene) -> None:
    """One disk each. The first can still be opened by its passphrase; the second is not opened with its data exposed."""
    root, second = scene.raw("root"), scene.raw(SECOND)
    foreign = token(read_json(second))
    rewrite(root, lambda metadata: token(metadata).update(foreign))
    rewrite(second, lambda metadata: metadata["segments"]["0"].update(encryption="cipher_null-ecb"))
    foreign_words = f"set: volume: is for {SECOND_UUID}, the header is {scene.luks.uuid}"
    null_words = "LUKS2 header: segments.0.encryption: cipher_null-ecb encrypts nothing"
    with scene.machine() as vm:
        vm.wait_console(PROMPT)
        said = vm.console_text()
        assert f"keyquorum: {NAME} stays closed: {foreign_words}" in said
        assert f"keyquorum: {SECOND} stays closed: {null_words}" in said
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_console(f"{NAME}: set up successfully")
        for _ in range(3):
            vm.wait_console(SECOND_PROMPT)
            vm.type("not the passphrase\n")
        vm.wait_agent()
        for name, words in ((NAME, foreign_words), (SECOND, null_words)):
            found = report(vm, name)
            assert (found["outcome"], found["exit_code"], found["message"]) == ("failed", 4, words)
        assert vm.run(f"test -e /dev/mapper/{SECOND}", check=False).code == 1


def test_another_volume_in_the_place_of_the_root(scene: Scene) -> None:
    """The UUID is one that the boot image does not open. The volume beside it opens all the same."""
    rewrite(scene.raw("root"), uuid=OTHER_UUID.encode())
    with scene.machine() as vm:
        vm.wait_console(PROMPT)
        said = vm.console_text()
        words = f"LUKS2 header: uuid: is {OTHER_UUID}, this boot image opens {scene.luks.uuid}"
        assert f"keyquorum: {NAME} stays closed: {words}" in said
        assert f"keyquorum: {SECOND} is open" in said
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_boot()
        found = report(vm, NAME)
        assert (found["outcome"], found["exit_code"], found["message"]) == ("failed", 4, words)
        assert_nothing_left(vm)
