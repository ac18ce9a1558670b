# SPDX-License-Identifier: Apache-2.0
"""An attacker who kept copies of everything puts them back: what this machine has left behind stays behind (I10)."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from devices.bench import PASSPHRASE, cryptsetup, opens_with, snapshot

if TYPE_CHECKING:
    from devices.bench import Bench


def put_back(copies: dict[str, bytes]) -> None:
    for path, content in copies.items():
        with open(path, "wb") as file:
            file.write(content)


def test_a_volume_that_was_taken_out_stays_out(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    copies = snapshot(volume, *disks)
    assert bench.run("unenroll", volume, "--yes").code == 0
    put_back(copies)
    said = bench.run("check", volume)
    assert said.code == 2
    assert "this machine knows no owner of volume" in said.err


def test_an_enrolment_that_was_replaced_stays_replaced(bench: Bench) -> None:
    volume, disks, policy = bench.enrolled()
    copies = snapshot(volume, *disks)
    assert bench.run("unenroll", volume, "--yes").code == 0
    again = bench.enroll(volume, policy, "--json")
    assert (again.code, again.json["epoch"]) == (0, 2)
    assert bench.run("check", volume).code == 0
    put_back(copies)
    said = bench.run("check", volume, "--json")
    assert said.code == 4
    assert said.json["message"] == "set: epoch: is 1, this machine accepts 2 and later"
    assert opens_with(volume, PASSPHRASE)


def test_also_when_the_token_was_removed_by_other_means(bench: Bench) -> None:
    volume, disks, policy = bench.enrolled()
    copies = snapshot(volume, *disks)
    cryptsetup("token", "remove", "--token-id", "0", volume)
    assert bench.enroll(volume, policy).code == 0
    put_back(copies)
    assert bench.run("check", volume).code == 4


def test_an_enrolment_that_fails_takes_no_epoch(bench: Bench) -> None:
    volume, disks, policy = bench.enrolled()
    assert bench.run("unenroll", volume, "--yes").code == 0
    os.rename(disks[2], f"{disks[2]}.away")
    assert bench.enroll(volume, policy).code != 0
    assert os.listdir(bench.path("volumes")) == [f"{os.path.basename(bench.anchor(volume))[:-5]}.last-epoch"]
    os.rename(f"{disks[2]}.away", disks[2])
    again = bench.enroll(volume, policy, "--json")
    assert (again.code, again.json["epoch"]) == (0, 2)


def test_an_old_fragment_disk_under_a_new_set_is_named(bench: Bench) -> None:
    volume, disks, policy = bench.enrolled()
    copies = snapshot(disks[0])
    assert bench.run("unenroll", volume, "--yes").code == 0
    assert bench.enroll(volume, policy).code == 0
    put_back(copies)
    report = bench.run("check", volume, "--json").json
    assert report["exit_code"] == 0
    assert report["holders"][0]["verdict"] == "tampered"
    assert "only fragments of another set of this volume" in report["holders"][0]["reason"]


def test_an_unreadable_last_epoch_stops_an_enrolment_before_anything_changes(bench: Bench) -> None:
    volume, _, policy = bench.enrolled()
    anchor = bench.anchor(volume)
    assert bench.run("unenroll", volume, "--yes").code == 0
    bench.write(f"volumes/{os.path.basename(anchor)[:-5]}.last-epoch", "-1\n")
    before = snapshot(volume)
    said = bench.enroll(volume, policy)
    assert said.code == 2
    assert "last-epoch" in said.err
    assert snapshot(volume) == before


def test_status_does_not_take_what_is_left_for_a_volume(bench: Bench) -> None:
    volume, _, _ = bench.enrolled()
    assert bench.run("unenroll", volume, "--yes").code == 0
    assert bench.run("status").out == "no volume is enrolled on this machine\n"
    shutil.rmtree(bench.path("volumes"))
