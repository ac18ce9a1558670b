# SPDX-License-Identifier: Apache-2.0
"""Reading disks past the page cache, through a ring of the kernel. That this leaves silent disks behind is shown by a
boot (tests/boots/test_silent.py): no disk of a test host stays silent.
"""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyquorum.linux import disk_reader
from keyquorum.linux.disk_reader import DiskReader

SIZE = (1 << 20) + 512  # no multiple of a page
CONTENT = os.urandom(SIZE)
PLACES = [(0, 4096), (0, 1), (1, 511), (4095, 2), (100_000, 300_001), (SIZE - 512, 512), (SIZE - 1, 4096), (SIZE, 16)]


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "image").write_bytes(CONTENT)
    argv = ["losetup", "--find", "--show", "--read-only", str(tmp_path / "image")]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture(autouse=True)
def no_open_requests() -> Iterator[None]:
    yield
    disk_reader._open_requests.clear()


def read(path: str, offset: int, size: int) -> bytes:
    with DiskReader(path) as disk:
        return disk.pread(disk.descriptor, size, offset)


@pytest.mark.parametrize(("offset", "size"), PLACES)
def test_a_disk_reads_as_os_pread_does(loop: str, offset: int, size: int) -> None:
    assert read(loop, offset, size) == CONTENT[offset : offset + size]


def test_one_reader_reads_many_times(loop: str) -> None:
    with DiskReader(loop) as disk:
        assert disk._ring is not None
        for offset, size in PLACES:
            assert disk.pread(disk.descriptor, size, offset) == CONTENT[offset : offset + size]


def test_a_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    for offset, size in PLACES:
        assert read(str(tmp_path / "file"), offset, size) == CONTENT[offset : offset + size]


def test_a_kernel_without_rings_reads_as_everybody_does(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> None:
        raise PermissionError(errno.EPERM, "io_uring is disabled")

    monkeypatch.setattr(disk_reader, "Ring", forbidden)
    for offset, size in PLACES:
        assert read(loop, offset, size) == CONTENT[offset : offset + size]


def test_what_fails_is_an_oserror_and_nothing_stays_open(loop: str, tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        DiskReader(str(tmp_path / "none"))
    with DiskReader(loop) as disk, pytest.raises(OSError, match="Bad file descriptor"):
        disk.pread(1_000_000, 512, 0)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not disk_reader._open_requests


def test_a_disk_with_an_old_request_is_not_asked_again_until_it_answers(loop: str) -> None:
    number = os.stat(loop).st_rdev
    disk_reader._open_requests[number] = time.monotonic() - disk_reader._PATIENCE - 1
    with pytest.raises(OSError, match="still does not answer"):
        DiskReader(loop)
    del disk_reader._open_requests[number]  # as the answer does
    assert read(loop, 0, 16) == CONTENT[:16]
    assert not disk_reader._open_requests
