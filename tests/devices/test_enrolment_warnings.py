# SPDX-License-Identifier: Apache-2.0
"""What holders have to say while they take a fragment goes to the person, and never where a recovery sheet goes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devices.tpm_emulator import Emulator

if TYPE_CHECKING:
    from devices.bench import Bench

POLICY = """\
version = 1
threshold = 2
of = ["disk-1", {0}]
[holder.disk-1]
kind = "disk"
device = "{1}"
"""
HOLDERS = {
    "tpm": '[holder.tpm]\nkind = "tpm"\npcrs = [7]\n',
    "person": '[holder.person]\nkind = "passphrase"\nmemory = 8\npasses = 1\n',
    "paper": '[holder.paper]\nkind = "sheet"\n',
}
WARNINGS = {
    "tpm": "warning: PCR 7 holds nothing: this machine measures nothing into it, so binding to it protects nothing",
    "person": "warning: the passphrase for person is short: 12 characters or more are better",
}


def write_policy(bench: Bench, *names: str) -> str:
    text = POLICY.format(", ".join(f'"{name}"' for name in names), bench.disk("disk-1"))
    return bench.write("policy.toml", text + "".join(HOLDERS[name] for name in names))


@pytest.mark.parametrize("name", ["tpm", "person"])
def test_a_warning_ends_no_enrolment(bench: Bench, name: str) -> None:
    policy, volume = write_policy(bench, name), bench.volume()
    with Emulator(bench.path("tpm")) as chip, open(bench.write("short", "nine char")) as short:
        with open(bench.path("keyquorum.conf"), "a") as conf:
            conf.write(f"tpm_device = {chip.device}\n")
        given = [f"--pin-fd=person={short.fileno()}"] if name == "person" else []
        said = bench.enroll(volume, policy, *given)
    assert said.code == 0, said.err
    assert WARNINGS[name] in said.lines
    assert said.out == ""


def test_a_directory_of_sheets_has_sheets_only(bench: Bench) -> None:
    policy, volume, sheets = write_policy(bench, "person", "paper"), bench.volume(), bench.path("sheets")
    os.mkdir(sheets)
    with open(bench.write("short", "nine char")) as short:
        said = bench.enroll(volume, policy, "--sheet-dir", sheets, f"--pin-fd=person={short.fileno()}")
    assert said.code == 0, said.err
    assert WARNINGS["person"] in said.lines
    assert os.listdir(sheets) == ["sheet-1.txt"]
    with open(os.path.join(sheets, "sheet-1.txt")) as sheet:
        assert "KEYQUORUM RECOVERY SHEET" in sheet.read()
