# SPDX-License-Identifier: Apache-2.0
"""The log of userspace measurements is one that systemd could have written; reference logs survive a crash."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from pathlib import Path

import pytest

from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import measurement_log
from keyquorum.linux.measurement_log import UserspaceLog

DIGESTS = {"sha256": b"\xab" * 32, "sha1": b"\xcd" * 20}
TEXT = "cryptsetup:root:6d1c7d1e-0000-4000-8000-000000000000"


def add(path: Path, text: str = TEXT) -> None:
    log = UserspaceLog(time.monotonic() + 0.2, str(path))
    log.add(15, DIGESTS, text, "volume-key")
    log.close()


def records(path: Path) -> list[dict[str, object]]:
    pieces = path.read_text().split("\x1e")
    assert pieces[0] == "", "a record begins with RS (RFC 7464)"
    assert all(piece.endswith("\n") for piece in pieces[1:])
    return [json.loads(piece) for piece in pieces[1:]]


def test_a_record_has_the_form_that_systemd_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log" / "tpm2-measure.log"
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    add(path)
    [record] = records(path)
    content = record.pop("content")
    assert record == {
        "pcr": 15,
        "digests": [{"hashAlg": "sha256", "digest": "ab" * 32}, {"hashAlg": "sha1", "digest": "cd" * 20}],
        "content_type": "systemd",
    }
    assert isinstance(content, dict)
    assert before <= content.pop("timestamp") <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert content == {"string": TEXT, "bootId": boot, "eventType": "volume-key"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_records_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    add(path, "one")
    add(path, 'two "quoted" \\x3a')
    assert [record["content"]["string"] for record in records(path)] == ["one", 'two "quoted" \\x3a']  # type: ignore[index]  # JSON


def test_a_log_whose_writer_died_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    add(path)
    content = path.read_bytes()
    path.chmod(0o600 | stat.S_ISVTX)
    add(path)
    assert path.read_bytes() == content
    assert path.stat().st_mode & stat.S_ISVTX


def test_dying_between_extension_and_record_leaves_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = UserspaceLog(time.monotonic() + 0.2, str(path))
    assert path.stat().st_mode & stat.S_ISVTX
    log.close()
    assert path.stat().st_mode & stat.S_ISVTX


def test_the_lock_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        started = time.monotonic()
        add(path)
        assert 0.2 <= time.monotonic() - started < 30
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b""
    add(path)
    assert len(records(path)) == 1


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    add(tmp_path / "file" / "log")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    add(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_reference_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = measurement_log.reference_path(str(tmp_path / "reference"), "6d1c7d1e-0000", "tpm")
    assert path.endswith("/6d1c7d1e-0000-tpm.eventlog")
    for content in (b"first", b"second" * 100_000):
        measurement_log.store(path, content)
        assert measurement_log.read(path, 1 << 20) == content
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path / "reference") == [os.path.basename(path)]


def test_a_reference_that_cannot_be_kept_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyquorumError):
        measurement_log.store(str(tmp_path / "file" / "x.eventlog"), b"log")


@pytest.mark.parametrize("volume", ["../../etc/passwd", "a/b", ".hidden"])
def test_no_reference_leaves_its_directory(volume: str) -> None:
    with pytest.raises(UsageError):
        measurement_log.reference_path("/etc/keyquorum/reference", volume, "tpm")


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)
    assert measurement_log.read(str(path), 100) == b"x" * 101
    assert measurement_log.read(str(tmp_path / "none"), 100) is None
