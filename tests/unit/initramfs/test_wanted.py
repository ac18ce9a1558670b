# SPDX-License-Identifier: Apache-2.0
"""Reading the crypttab of a boot image as Debian's scripts read it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import KeyquorumError
from keyquorum.initramfs import wanted

if TYPE_CHECKING:
    from pathlib import Path


def test_entries(tmp_path: Path) -> None:
    file = tmp_path / "crypttab"
    file.write_text(
        "# comment\n"
        "\n"
        "root UUID=1 none luks,discard\n"
        "  \tdata\t/dev/vdb   /etc/key\n"
        "# swap /dev/vdc /dev/urandom\n"
        "short /dev/vdd\n"
        "my\\040disk /dev/mapper/a\\0040b -\n"
    )
    assert wanted._entries(str(file)) == [
        ("root", "UUID=1", "none"),
        ("data", "/dev/vdb", "/etc/key"),
        ("my disk", "/dev/mapper/a b", "-"),
    ]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "crypttab").write_bytes(b"r\xffoot UUID=1 none\n")
    assert wanted._entries(str(tmp_path / "crypttab"))[0][0] == "r\udcffoot"


def test_no_crypttab(tmp_path: Path) -> None:
    with pytest.raises(KeyquorumError, match=r"crypttab cannot be read: No such file or directory$"):
        wanted.boot_volumes(str(tmp_path / "crypttab"), "/none", print)


def printf(word: str) -> str:
    """What Debian's scripts make of a word (cryptsetup's functions: printf '%b')."""
    done = subprocess.run(["/bin/sh", "-c", 'printf "%b" "$1"', "sh", word], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape")


ESCAPES = ["\\040", "\\0040", "\\011", "\\\\", "\\7", "\\0", "\\08", "\\1234", "\\t", "\\n", "a", "1", "ö", "€", "x"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(ESCAPES), max_size=5).map("".join))
def test_escapes_are_printfs(word: str) -> None:
    assert wanted._unescape(word) == printf(word)


@pytest.mark.parametrize("word", ["\\", "a\\", "\\x", "\\xzz", "\\u12", "\\N{DIGIT ONE}", "\\q", "\\U00110000"])
def test_what_is_no_escape_stays(word: str) -> None:
    assert wanted._unescape(word) == word


def test_a_volume_that_is_not_there_asks_for_its_passphrase(tmp_path: Path) -> None:
    (tmp_path / "crypttab").write_text("root /dev/none none\n")
    notes: list[str] = []
    assert wanted.boot_volumes(str(tmp_path / "crypttab"), str(tmp_path / "volumes"), notes.append) == []
    assert notes == [], "a machine without enrolled volumes is not told about each of its volumes"
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "x.json").write_text("{}")
    assert wanted.boot_volumes(str(tmp_path / "crypttab"), str(tmp_path / "volumes"), notes.append) == []
    assert notes == ["root will ask for its passphrase: /dev/none does not exist"]
