# SPDX-License-Identifier: Apache-2.0
"""`keyquorum create` on image files: a new volume that is enrolled from its first day."""

from __future__ import annotations

import os

import pytest

from devices.bench import PASSPHRASE, Bench, opens_with, snapshot
from devices.luks2_header import read_json


def new_device(bench: Bench) -> str:
    device = bench.write("new.img", b"")
    os.truncate(device, 20 << 20)
    return device


def test_create(bench: Bench) -> None:
    device, disks = new_device(bench), [bench.disk(f"d{number}") for number in range(2)]
    words = ("create", device, "--policy", bench.policy(disks), "--key-file", bench.key_file, "--yes", "--json")
    said = bench.run(*words)
    assert said.code == 0
    bench.volumes.append(said.json["volume"])
    assert (said.json["command"], said.json["mode"], said.json["keyslot"]) == ("create", "wrapped", -1)
    assert opens_with(device, PASSPHRASE)
    assert bench.run("check", device).code == 0
    before = snapshot(device)
    again = bench.run(*words)
    assert (again.code, "is a LUKS volume already" in again.err, snapshot(device)) == (2, True, before)


@pytest.mark.parametrize(("option", "keyslots"), [("--direct", 0), ("--with-keyslot", 1)])
def test_create_in_other_ways(bench: Bench, option: str, keyslots: int) -> None:
    device, disks = new_device(bench), [bench.disk(f"d{number}") for number in range(2)]
    said = bench.run("create", device, "--policy", bench.policy(disks), "--no-passphrase", "--yes", "--json", option)
    assert said.code == 0
    bench.volumes.append(said.json["volume"])
    assert len(read_json(device)["keyslots"]) == keyslots
    assert bench.run("check", device).code == 0


def test_create_without_a_passphrase(bench: Bench) -> None:
    device, disks = new_device(bench), [bench.disk(f"d{number}") for number in range(2)]
    said = bench.run("create", device, "--policy", bench.policy(disks), "--no-passphrase", "--yes", "--json")
    assert said.code == 0
    bench.volumes.append(said.json["volume"])
    assert read_json(device)["keyslots"] == {}
    refused = bench.run("unenroll", device, "--yes")
    assert refused.code == 2
    assert refused.lines == [
        f"no keyslot of {device} would open it afterwards",
        f"  add a passphrase first: keyquorum recover {device} --add-passphrase",
    ]
    assert bench.run("recover", device, "--add-passphrase", "--new-key-file", bench.key_file).code == 0
    assert bench.run("unenroll", device, "--yes").code == 0
    assert opens_with(device, PASSPHRASE)
