# SPDX-License-Identifier: Apache-2.0
"""The journal's native protocol, against a socket of the same kind."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.linux import journal

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def decode(datagram: bytes) -> dict[str, str]:
    """The protocol as its page describes it, written without looking at the encoder."""
    fields, rest = {}, datagram
    while rest:
        line, _, rest = rest.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :].removeprefix(b"\n")
        fields[name.decode()] = value.decode()
    return fields


def test_a_plain_entry() -> None:
    assert journal.encode({"MESSAGE": "it is open", "PRIORITY": "5"}) == b"MESSAGE=it is open\nPRIORITY=5\n"


def test_a_new_line_makes_no_second_field() -> None:
    encoded = journal.encode({"MESSAGE": "a\nPRIORITY=0", "X": "y"})
    assert encoded == b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nX=y\n"
    assert decode(encoded) == {"MESSAGE": "a\nPRIORITY=0", "X": "y"}


def test_empty_fields_are_left_out() -> None:
    assert journal.encode({"A": "", "B": "x"}) == b"B=x\n"


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_whatever_the_text(fields: dict[str, str]) -> None:
    assert decode(journal.encode(fields)) == {name: value for name, value in fields.items() if value}


def test_an_entry_is_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        assert journal.send({"MESSAGE": "x", "KEYQUORUM_NAME": "data"}, path)
        assert decode(listener.recv(4096)) == {"MESSAGE": "x", "KEYQUORUM_NAME": "data"}


def test_no_journal_is_said_and_not_raised(tmp_path: Path) -> None:
    assert not journal.send({"MESSAGE": "x"}, str(tmp_path / "none"))


def test_a_journal_that_is_stuck_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        taken = 0
        while journal.send({"MESSAGE": "x" * 4000}, path):
            taken += 1
            assert taken < 10_000


def test_standard_error_is_the_journal_only_where_systemd_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from keyquorum.linux import journal; print(journal.reads_standard_error())"
    with open(tmp_path / "log", "w+b") as log:
        stream = os.fstat(log.fileno())
        for value, expected in (
            (f"{stream.st_dev}:{stream.st_ino}", b"True\n"),
            (f"{stream.st_dev}:{stream.st_ino + 1}", b"False\n"),
            ("", b"False\n"),
        ):
            monkeypatch.setenv("JOURNAL_STREAM", value)
            done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=log, check=True)
            assert done.stdout == expected
