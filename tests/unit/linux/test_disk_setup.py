# SPDX-License-Identifier: Apache-2.0
"""A new partition comes, goes for a moment while udev reads the table again, and comes back (docs/holders-disk.md §1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import KeyquorumError
from keyquorum.linux import disk_setup, fragment_disk
from keyquorum.model.fragment_disk import DISK_SIZE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that counts as a whole disk, whose table is written by nobody."""
    monkeypatch.setattr(disk_setup, "_is_whole_disk", lambda _device: True)
    monkeypatch.setattr(disk_setup, "_write_table", lambda _device, _disk_id: None)


@pytest.mark.usefixtures("disk")
def test_a_partition_that_is_gone_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "vdb1"
    there.write_bytes(bytes(DISK_SIZE))
    seen = iter([[], [str(tmp_path / "gone")], [], [str(there)]])
    monkeypatch.setattr(disk_setup, "partitions", lambda _device: next(seen))
    made = disk_setup.init_disk("/dev/vdb")
    assert (made.path, made.partitioned) == (str(there), True)
    assert fragment_disk.read(str(there), made.disk_id)[1] == ()


@pytest.mark.usefixtures("disk")
def test_a_partition_that_never_comes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_setup, "_PARTITION_SECONDS", 0.1)
    monkeypatch.setattr(disk_setup, "partitions", lambda _device: list[str]())
    with pytest.raises(KeyquorumError, match="its partition does not appear"):
        disk_setup.init_disk("/dev/vdb")
