# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import KeyquorumError
from keyquorum.linux import atomic_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_file_and_its_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic_file.write(str(path), b"content")
    assert path.read_bytes() == b"content"
    assert [stat.S_IMODE(at.stat().st_mode) for at in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    public = tmp_path / "c" / "file"
    atomic_file.write(str(public), b"", 0o644)
    assert [stat.S_IMODE(at.stat().st_mode) for at in (public, public.parent)] == [0o644, 0o755]


def test_replacing_leaves_one_file_and_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o777)
    atomic_file.write(str(path), b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert os.listdir(tmp_path) == ["file"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        atomic_file.write(str(tmp_path / "file"), b"", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"untouched")
    link.symlink_to(target)
    atomic_file.write(str(link), b"new")
    assert (target.read_bytes(), link.is_symlink(), link.read_bytes()) == (b"untouched", False, b"new")


def test_what_an_interrupted_process_with_our_number_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """Process numbers repeat, after a power cut above all: in an initramfs or a container the first ones always do."""
    path = tmp_path / "file"
    (tmp_path / f"file.{os.getpid()}.new").write_bytes(b"half")
    atomic_file.write(str(path), b"whole")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]


def test_failures_leave_nothing_and_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(KeyquorumError, match=r"file cannot be written: Is a directory$"):
        atomic_file.write(str(tmp_path / "file"), b"x")
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(KeyquorumError, match=r"cannot be written: (File exists|Not a directory)$"):
        atomic_file.write(str(tmp_path / "plain" / "file"), b"x")


def test_a_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic_file.write("file", b"x")
    atomic_file.remove("file")
    assert os.listdir(tmp_path) == []


def test_removing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    atomic_file.remove(str(path))
    atomic_file.remove(str(path))
    assert not path.exists()
    with pytest.raises(KeyquorumError, match="cannot be removed"):
        atomic_file.remove(str(tmp_path))


def test_a_signal_after_the_rename_is_still_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def rename(source: str, target: str) -> None:
        real(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        atomic_file.write(str(tmp_path / "f"), b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_directory_that_another_process_makes_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def mkdir(path: str, mode: int) -> None:
        real(path, mode)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    atomic_file.write(str(tmp_path / "a/b/f"), b"x")
    assert (tmp_path / "a/b/f").read_bytes() == b"x"


def test_a_pipe_where_a_file_belongs_is_waited_for_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    assert atomic_file.read(str(path), 100) == b""
    assert atomic_file.read("/dev/zero", 100) == b""
    with pytest.raises(KeyquorumError, match="cannot be read"):
        atomic_file.read(str(tmp_path), 100)


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A custodian's threads share a process number, and each keeps the newest checkpoint."""
    path, flush = tmp_path / "file", os.fsync
    other = threading.Thread(target=atomic_file.write, args=(str(path), b"second"))

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        other.start()
        other.join()
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    atomic_file.write(str(path), b"first")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]
