# SPDX-License-Identifier: Apache-2.0
"""Another volume under the name of the one that was meant: on the disk, in udev's links, among the mappings (I5)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from keyquorum import settings
from keyquorum.enroll import preconditions
from keyquorum.errors import UsageError
from keyquorum.holders.contract import Tuning
from keyquorum.linux import block, cryptsetup
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model.holder_options import DiskOptions
from keyquorum.unlock import open_volume, proxy
from keyquorum.unlock.arguments import Arguments, parse
from keyquorum.unlock.gather import Context
from unit.model.policies import short

if TYPE_CHECKING:
    from pathlib import Path

UUID = "0e64fb5c-1a3c-4a5c-8f2d-6b1c7d1e5ab0"
OTHER = "11111111-1a3c-4a5c-8f2d-6b1c7d1e5ab0"


def test_names_that_say_which_volume() -> None:
    assert block.named_uuid(f"UUID={UUID.upper()}") == UUID
    assert block.named_uuid(f"/dev/disk/by-uuid/{UUID}") == UUID
    for name in ("/dev/vdb", f"PARTUUID={UUID}", "LABEL=x", "", f"/dev/disk/by-partuuid/{UUID}"):
        assert block.named_uuid(name) == ""
    assert parse(["/dev/vdb", f"--volume={UUID}"], "").volume == UUID


class Loaded:
    """A header that says who it is."""

    uuid, data_path = UUID, "/dev/vdb"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept."""

    def metadata(self) -> bytes:
        return b'{"tokens": {}}'


def outcome(monkeypatch: pytest.MonkeyPatch, **words: Any) -> tuple[int, str]:
    monkeypatch.setattr(proxy, "load_header", lambda _device, _header: Loaded())
    context = Context(answers=LocalAnswers(), tuning=Tuning(), now=int(time.time()), tell=lambda _verdict: None)
    asked = proxy.Proxy(
        arguments=Arguments(**words), settings=settings.parse(""), context=context, warn=lambda _line: None
    )
    report = asked.unlock()
    return report.exit_code, report.message


@pytest.mark.parametrize(
    "words",
    [
        {"device": f"UUID={OTHER}"},
        {"device": f"/dev/disk/by-uuid/{OTHER}"},
        {"device": "/dev/vdb", "volume": OTHER},
        {"device": f"UUID={UUID}", "volume": OTHER},
        {"device": f"UUID={OTHER}", "volume": UUID},
        {"device": "/dev/vdb", "volume": OTHER, "header": "/boot/header"},
    ],
)
def test_a_header_of_another_volume_is_tampering(monkeypatch: pytest.MonkeyPatch, words: dict[str, str]) -> None:
    code, message = outcome(monkeypatch, **words)
    assert code == 4
    assert message.startswith(f"LUKS2 header: uuid: is {UUID}, ")
    assert message.endswith(OTHER)


@pytest.mark.parametrize(
    "words",
    [
        {"device": f"UUID={UUID}"},
        {"device": "/dev/vdb"},
        {"device": "/dev/vdb", "volume": UUID},
        {"device": f"UUID={OTHER}", "header": "/boot/header"},  # a data device has no UUID of LUKS then
    ],
)
def test_the_one_that_was_meant_is_looked_at(monkeypatch: pytest.MonkeyPatch, words: dict[str, str]) -> None:
    assert outcome(monkeypatch, **words) == (2, "/dev/vdb is not enrolled")


def mapping(sysfs: Path, number: int, name: str, uuid: str) -> None:
    directory = sysfs / f"class/block/dm-{number}/dm"
    directory.mkdir(parents=True)
    (directory / "name").write_text(name + "\n")
    (directory / "uuid").write_text(uuid + "\n")


def test_the_device_mapper_says_whose_mapping_it_is(tmp_path: Path) -> None:
    mapping(tmp_path, 0, "root", "CRYPT-LUKS2-" + UUID.replace("-", "") + "-root")
    mapping(tmp_path, 1, "my\\x20data", "LVM-x")
    (tmp_path / "class/block/vda").mkdir()
    assert block.mapped_uuid("root", str(tmp_path)).startswith("CRYPT-LUKS2-0e64fb5c1a3c")
    assert block.mapped_uuid("my data", str(tmp_path)) == "LVM-x"
    assert block.mapped_uuid("dat", str(tmp_path)) == ""
    assert block.mapped_uuid("root", str(tmp_path / "none")) == ""


@pytest.mark.parametrize("mapped", ["CRYPT-LUKS2-11111111-x", "LVM-x", f"CRYPT-LUKS2-{UUID.replace('-', '')}"])
def test_a_name_that_is_taken_is_not_called_open(monkeypatch: pytest.MonkeyPatch, mapped: str) -> None:
    monkeypatch.setattr(cryptsetup, "is_active", lambda _name: True)
    monkeypatch.setattr(block, "mapped_uuid", lambda _name: mapped)
    code, message = outcome(monkeypatch, device="/dev/vdb", name="data")
    assert (code, message) == (2, "/dev/mapper/data exists already and is another volume")


@pytest.mark.parametrize("mapped", ["", f"CRYPT-LUKS2-{UUID.replace('-', '')}-data"])
def test_open_already(monkeypatch: pytest.MonkeyPatch, mapped: str) -> None:
    monkeypatch.setattr(cryptsetup, "is_active", lambda _name: True)
    monkeypatch.setattr(block, "mapped_uuid", lambda _name: mapped)
    assert outcome(monkeypatch, device="/dev/vdb", name="data") == (0, "")


def test_a_name_that_somebody_took_while_we_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "mapped_uuid", lambda _name: "CRYPT-LUKS2-11111111-data")
    with pytest.raises(UsageError, match="is another volume"):
        open_volume.refuse_taken_name("data", UUID)


def test_a_fragment_disk_on_the_volume_itself(tmp_path: Path) -> None:
    """A file in the volume, a logical volume on it, and a partition of that."""
    number = os.stat(tmp_path).st_dev
    directory = tmp_path / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    below = directory / "slaves/dm-0/dm"
    below.mkdir(parents=True)
    (below / "uuid").write_text("CRYPT-LUKS2-" + UUID.replace("-", "") + "-root\n")
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"")
    policy = short(2, "disk-a disk-b tpm")
    holders = tuple(
        spec.with_(options=DiskOptions(device=str(disk))) if spec.name == "disk-b" else spec for spec in policy.holders
    )
    policy = policy.with_(holders=holders)
    with pytest.raises(UsageError, match=r"disk\.img lies on the volume that it is to open"):
        preconditions.refuse_circles(policy, UUID, str(tmp_path / "sys"))
    preconditions.refuse_circles(policy, OTHER, str(tmp_path / "sys"))
    preconditions.refuse_circles(policy, UUID)
