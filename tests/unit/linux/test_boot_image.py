# SPDX-License-Identifier: Apache-2.0
"""Whether a volume is opened by the initramfs: its place under / or /usr, or its crypttab line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keyquorum.linux import boot_image

if TYPE_CHECKING:
    from pathlib import Path

UUID = "0b6bd4d6-3cf3-4bd4-a3c5-1f4a4d4f8f5a"


def stack(sysfs: Path, device: str, layers: list[str]) -> None:
    """Put `layers` (device-mapper UUIDs, topmost first; "" for a plain disk) under a device number."""
    at = sysfs / "dev" / "block" / device
    for layer in layers:
        at.mkdir(parents=True)
        if layer:
            (at / "dm").mkdir()
            (at / "dm" / "uuid").write_text(layer + "\n")
        at = at / "slaves" / "below"


def root_device() -> str:
    number = os.stat("/").st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def opens(tmp_path: Path, crypttab: str = "") -> bool:
    (tmp_path / "crypttab").write_text(crypttab)
    found = boot_image._under_boot_mounts(UUID, str(tmp_path / "sys"))
    return found or boot_image._marked_in_crypttab(UUID, str(tmp_path / "crypttab"))


CRYPT = f"CRYPT-LUKS2-{UUID.replace('-', '')}-root"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([CRYPT], True),
        (["LVM-abc", CRYPT, ""], True),
        (["LVM-abc", "CRYPT-LUKS2-ffffffff-other", ""], False),
        (["CRYPT-LUKS1-0b6bd4d63cf34bd4a3c51f4a4d4f8f5a-root"], False),
        ([""], False),
    ],
)
def test_what_root_stands_on(tmp_path: Path, layers: list[str], expected: bool) -> None:
    stack(tmp_path / "sys", root_device(), layers)
    assert opens(tmp_path) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"data UUID={UUID} none luks,initramfs", True),
        (f"data UUID={UUID.upper()} none initramfs", True),
        (f"data UUID={UUID} none luks", False),
        (f"data UUID={UUID} none", False),
        (f"# data UUID={UUID} none initramfs", False),
        ("data UUID=ffff none initramfs", False),
        (f"data /dev/disk/by-uuid/{UUID} none initramfs", True),
        ("", False),
    ],
)
def test_what_crypttab_says(tmp_path: Path, line: str, expected: bool) -> None:
    assert opens(tmp_path, line + "\n") is expected


def test_no_crypttab(tmp_path: Path) -> None:
    assert not boot_image._marked_in_crypttab(UUID, str(tmp_path / "none"))
