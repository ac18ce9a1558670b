# SPDX-License-Identifier: Apache-2.0
"""Fragments that are lost, or stolen, together: said before anybody relies on them (docs/enrolment.md §2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.enroll import preconditions
from keyquorum.linux import drives
from keyquorum.model.holder_options import DiskOptions
from unit.model.policies import short

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_from_a_partition_of_a_mapping_over_two_arrays_to_the_drives(tmp_path: Path) -> None:
    """As sysfs has it: a partition lies in its disk's directory, and what a mapping stands on is linked from slaves/."""
    for drive in ("sda", "sdb", "nvme0n1"):
        part = tmp_path / drive / f"{drive}p1"
        part.mkdir(parents=True)
        (part / "partition").write_text("1\n")
        (tmp_path / drive / "slaves").mkdir()
    for upper, members in {"md0": ("sda", "sdb"), "dm-0": ("md0", "nvme0n1")}.items():
        (tmp_path / upper / "slaves").mkdir(parents=True)
        for member in members:
            where = tmp_path / member if member == "md0" else tmp_path / member / f"{member}p1"
            (tmp_path / upper / "slaves" / where.name).symlink_to(where)
    (tmp_path / "dm-0" / "dm-0p1").mkdir()
    (tmp_path / "dm-0" / "dm-0p1" / "partition").write_text("1\n")
    assert drives.below(str(tmp_path / "dm-0" / "dm-0p1")) == {"sda", "sdb", "nvme0n1"}
    assert drives.below(str(tmp_path / "md0")) == {"sda", "sdb"}
    assert drives.below(str(tmp_path / "sda" / "sdap1")) == {"sda"}


def test_a_device_that_stands_on_itself_ends_the_search(tmp_path: Path) -> None:
    (tmp_path / "dm-0" / "slaves").mkdir(parents=True)
    (tmp_path / "dm-0" / "slaves" / "dm-0").symlink_to(tmp_path / "dm-0")
    assert drives.below(str(tmp_path / "dm-0")) == {"dm-0"}


def test_files_are_on_no_drive_that_is_known(tmp_path: Path) -> None:
    assert drives.drives_below(str(tmp_path)) == frozenset()
    assert drives.drives_below(str(tmp_path / "none")) == frozenset()


def test_shared_drives_are_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    on = {
        "/dev/vda3": {"vda"},
        "/dev/vda4": {"vda"},
        "/dev/vdb1": {"vdb"},
        "/dev/vdb2": {"vdb"},
        "/dev/vdc1": {"vdc"},
        "/disk.img": set[str](),
    }
    monkeypatch.setattr(drives, "drives_below", lambda device: frozenset(on[device]))

    def warned(*devices: str) -> list[str]:
        names = [f"disk-{letter}" for letter in "abc"[: len(devices)]]
        policy = short(2, " ".join([*names, "tpm"]))
        options = dict(zip(names, devices, strict=True))
        holders = tuple(
            spec.with_(options=DiskOptions(device=options[spec.name])) if spec.name in options else spec
            for spec in policy.holders
        )
        said: list[str] = []
        preconditions.warn_of_shared_drives(policy.with_(holders=holders), "/dev/vda3", said.append)
        return said

    assert warned("/dev/vda4", "/dev/vdb1", "/dev/vdb2") == [
        "disk-a and the volume are on one drive, vda: a theft or a fault takes both",
        "disk-c and disk-b are on one drive, vdb: a theft or a fault takes both",
    ]
    assert warned("/dev/vdb1", "/dev/vdc1") == []
    assert warned("/disk.img", "/disk.img") == []
