# SPDX-License-Identifier: Apache-2.0
"""Debian 12: OpenSSL 3.0 without ML-KEM, cryptsetup 2.6, systemd 252, Python 3.11."""

import dataclasses
from pathlib import Path

import pytest

from boots.aftermath import MISSING
from boots.enrolled import ANY_TWO, NAME, OPENED, PROMPT, Scene, enrolled_root
from boots.leftovers import assert_nothing_left, report, verdicts


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(enrolled_root(dataclasses.replace(ANY_TWO, suite="bookworm")), str(tmp_path))


def test_the_root_opens_by_itself(scene: Scene) -> None:
    with open(scene.enrolled.path("enroll.log"), encoding="utf-8") as log:
        assert (
            "fragments are sealed by X25519 and not by X-Wing: this machine's OpenSSL is older than 3.5" in log.read()
        )
    with scene.machine() as vm:
        vm.wait_console(OPENED)
        vm.wait_boot()
        assert PROMPT not in vm.console_text()
        assert vm.run("cat /etc/debian_version").text.startswith("12.")
        assert f":64:logon:cryptsetup:{scene.luks.uuid}-d0" in vm.run(f"dmsetup table {NAME}").text
        assert_nothing_left(vm)


def test_a_missing_holder(scene: Scene) -> None:
    scene.tpm = None
    with scene.machine() as vm:
        vm.wait_console(OPENED)
        vm.wait_boot()
        found = verdicts(report(vm, NAME))
        assert found.pop("tpm") in MISSING
        assert found == {"disk-a": "valid", "disk-b": "valid"}
        assert PROMPT not in vm.console_text()
