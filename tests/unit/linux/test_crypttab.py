# SPDX-License-Identifier: Apache-2.0
"""crypttab as systemd reads it (tests/devices/test_generator.py compares with systemd's own generator)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import UsageError
from keyquorum.linux import crypttab
from keyquorum.linux.crypttab import Entry

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"""\
# name device key options

data\tUUID=1115ab1f-8c7c-47bc-ac4f-59a59c31508e  none  luks,x-keyquorum,header=/a,header=/b
  swap /dev/vdc
  #x /dev/vdd none
keyed LABEL="my\\040disk" /run/keyquorum/key.sock luks more words
alone
data /dev/second none
dash /dev/vde - ,,discard,"""


def test_lines() -> None:
    assert crypttab.parse(TEXT) == (
        Entry(
            name="data",
            source="UUID=1115ab1f-8c7c-47bc-ac4f-59a59c31508e",
            key="",
            options=("luks", "x-keyquorum", "header=/a", "header=/b"),
        ),
        Entry(name="swap", source="/dev/vdc", key="", options=()),
        Entry(name="keyed", source="LABEL=my\\040disk", key="/run/keyquorum/key.sock", options=("luks",)),
        Entry(name="dash", source="/dev/vde", key="", options=("discard",)),
    )


def test_the_last_of_an_option_counts() -> None:
    data, swap, *_ = crypttab.parse(TEXT)
    assert (data.option("header"), swap.option("header"), data.option("luks")) == ("/b", "", "")


def test_find(tmp_path: Path) -> None:
    path = tmp_path / "crypttab"
    path.write_bytes(TEXT)
    assert crypttab.find("swap", str(path)).source == "/dev/vdc"
    with pytest.raises(UsageError, match="no line for other"):
        crypttab.find("other", str(path))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        crypttab.find("swap", str(tmp_path / "none"))


def test_only_ascii_white_space_separates() -> None:
    assert crypttab.parse("a\u00a0b /dev/vdb".encode()) == (
        Entry(name="a\u00a0b", source="/dev/vdb", key="", options=()),
    )


def test_bytes_that_are_no_text_hide_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "crypttab"
    path.write_bytes(b"\xff\xfe /dev/vdb none\ndata /dev/vdc none\n")
    assert crypttab.find("data", str(path)).source == "/dev/vdc"
