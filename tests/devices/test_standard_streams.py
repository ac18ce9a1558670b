# SPDX-License-Identifier: Apache-2.0
"""Nobody listens: closed, full and broken streams cost words, and neither an outcome nor an exit code (I3, I4).

A boot without a console starts its programs with descriptors 0 to 2 closed; a journal that crashed leaves a pipe that
breaks. In both the volume has to open.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devices.bench import PASSPHRASE, opens_with

if TYPE_CHECKING:
    from devices.bench import Bench

PROGRAM = "from keyquorum.process import leave; from keyquorum.cli.main import main; leave(main())"
CLOSED = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]


def run(words: list[str], redirection: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command under a shell that redirects its streams."""
    command = f'exec "$0" -c "$1" "${{@:2}}" {redirection}'
    return subprocess.run(
        ["/bin/bash", "-c", command, sys.executable, PROGRAM, *words],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=120,
    )


def closing(descriptors: tuple[int, ...]) -> str:
    return " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in descriptors)


@pytest.mark.parametrize("closed", CLOSED)
def test_a_check_without_streams(bench: Bench, closed: tuple[int, ...]) -> None:
    volume, disks, _ = bench.enrolled()
    done = run(["check", volume, "--json"], closing(closed))
    assert done.returncode == 0, done.stderr
    assert b"fault" not in done.stderr
    if 1 not in closed:
        assert json.loads(done.stdout)["outcome"] == "quorum"
    for disk in disks[1:]:
        os.unlink(disk)
    assert run(["check", volume], closing(closed)).returncode == 3


def test_an_enrolment_without_streams_writes_into_nothing_else(bench: Bench) -> None:
    volume, disks = bench.volume(), [bench.disk("a"), bench.disk("b")]
    words = ["enroll", volume, "--policy", bench.policy(disks), "--key-file", bench.key_file, "--yes"]
    done = run(words, closing((0, 1, 2)))
    assert done.returncode == 0
    assert opens_with(volume, PASSPHRASE)
    assert bench.run("check", volume).code == 0


@pytest.mark.parametrize("broken", ["2>/dev/full", "2> >(:)", "2>&1 | :; exit ${PIPESTATUS[0]}"])
def test_errors_that_nobody_reads(bench: Bench, broken: str) -> None:
    volume, disks, _ = bench.enrolled()
    command = f'"$0" -c "$1" "${{@:2}}" {broken}'
    for away, expected in ((0, 0), (2, 3)):
        for disk in disks[:away]:
            os.unlink(disk)
        done = subprocess.run(
            ["/bin/bash", "-c", command, sys.executable, PROGRAM, "check", volume],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == expected, (broken, done.stderr)


@pytest.mark.usefixtures("bench")
def test_a_result_that_cannot_be_written_is_no_fault_of_ours() -> None:
    done = run(["status"], ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"keyquorum: standard output cannot be written: No space left on device\n"


def test_a_reader_that_has_enough_is_no_error_to_talk_about(bench: Bench) -> None:
    for number in range(3):
        volume = bench.volume(f"v{number}")
        assert bench.enroll(volume, bench.policy([bench.disk(f"a{number}"), bench.disk(f"b{number}")])).code == 0
    command = '"$0" -c "$1" status | head -1'
    done = subprocess.run(["/bin/bash", "-c", command, sys.executable, PROGRAM], capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


@pytest.mark.parametrize("words", [["unlock", "--help"], ["policy", "check", "--help"], ["--help"]])
def test_a_terminal_that_knows_no_unicode(words: list[str]) -> None:
    done = run(words, "", PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout
