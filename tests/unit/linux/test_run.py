# SPDX-License-Identifier: Apache-2.0
"""The one door for programs: bounds hold, nothing of ours leaks into the program, nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keyquorum.errors import KeyquorumError
from keyquorum.linux import run
from keyquorum.linux.run import Limits
from keyquorum.secret import Secret

QUICK = Limits(seconds=10)


def shell(script: str, limits: Limits = QUICK, stdin: Secret | None = None) -> run.Finished:
    return run.run(("sh", "-c", script), limits, stdin=stdin)


def lives_on(pid: int) -> bool:
    """Say whether a process that was killed lives on. A zombie that nobody has waited for yet does not live."""
    for _ in range(3000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_output_status_and_words() -> None:
    done = shell("echo out; echo first >&2; echo 'second\tline' >&2; exit 7")
    assert (done.status, done.output, done.errors) == (7, b"out\n", "second?line")


def test_status_of_a_killed_program_is_minus_the_signal() -> None:
    assert shell("kill -SEGV $$").status == -signal.SIGSEGV


def test_a_program_that_must_succeed() -> None:
    assert run.run_checked(("echo", "x"), QUICK) == b"x\n"
    with pytest.raises(KeyquorumError, match=r"^sh failed with exit status 3: no such thing$"):
        run.run_checked(("sh", "-c", "echo no such thing >&2; exit 3"), QUICK)
    with pytest.raises(KeyquorumError, match=r"^sh was killed by signal 9$"):
        run.run_checked(("sh", "-c", "kill -9 $$"), QUICK)


def test_missing_program() -> None:
    with pytest.raises(KeyquorumError, match=r"^the program no-such-program is not installed$"):
        run.run(("no-such-program",), QUICK)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x7fELFnot really")
    path.chmod(0o755)
    with pytest.raises(KeyquorumError, match=r"^noise cannot be run: Exec format error$"):
        run.run((str(path),), QUICK)


def test_programs_come_only_from_the_fixed_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted"
    planted.write_text("#!/bin/sh\necho mine\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyquorumError, match="is not installed"):
        run.run(("planted",), QUICK)
    assert run.run((str(planted),), QUICK).output == b"mine\n"


def test_environment_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_SOMEBODY", "x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    done = run.run(("env",), QUICK, environment={"EXTRA": "1"})
    assert set(done.output.decode().split()) == {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "EXTRA=1"}


def test_no_descriptor_of_ours_is_inherited() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    try:
        listed = shell("ls -l /proc/$$/fd").output.decode()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert {line.split()[-3] for line in listed.splitlines() if "->" in line} == {"0", "1", "2"}
    assert "/dev/null" in listed


def test_it_works_when_our_own_standard_descriptors_are_closed() -> None:
    script = (
        "import os\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "from keyquorum.linux import run\n"
        "from keyquorum.secret import Secret\n"
        "stdin = Secret.from_view(b'abc')\n"
        "done = run.run(('sh', '-c', 'cat; echo err >&2'), run.Limits(seconds=10), stdin=stdin)\n"
        "os._exit(0 if (done.output, done.errors) == (b'abc', 'err') else 9)\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


def test_signals_that_python_ignores_work_in_the_program() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        done = run.run(("cat", "/proc/self/status"), QUICK)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = done.output.decode().splitlines()
    masks = {
        name: int(value, 16)
        for name, _, value in (line.partition(":") for line in status)
        if name[:3] == "Sig" and name != "SigQ"
    }
    assert masks["SigIgn"] & (1 << (signal.SIGPIPE - 1)) == 0
    assert masks["SigBlk"] == 0


def test_input_comes_from_a_secret_of_any_size() -> None:
    for size in (0, 1, 5000, 20_000):
        with Secret(size) as stdin:
            stdin.view[:] = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
            assert run.run(("cat",), QUICK, stdin=stdin).output == bytes(stdin.view)


def test_a_program_that_reads_no_input_is_no_error() -> None:
    with Secret(20_000) as stdin:
        assert shell("exec <&-; exit 4", stdin=stdin).status == 4


def test_output_goes_into_locked_memory() -> None:
    status, answer = run.run_for_secret(("printf", "%s", "geheim"), QUICK)
    with answer:
        assert (status, bytes(answer.view)) == (0, b"geheim")


def test_too_much_output_is_refused_at_once() -> None:
    for attempt in (
        lambda: run.run(("cat", "/dev/zero"), Limits(seconds=10, output=100_000)),
        lambda: run.run_for_secret(("cat", "/dev/zero"), QUICK),
    ):
        started = time.monotonic()
        with pytest.raises(KeyquorumError, match=r"^cat wrote more than"):
            attempt()
        assert time.monotonic() - started < 5


def test_output_of_exactly_the_cap_is_taken() -> None:
    status, answer = run.run_for_secret(("head", "-c", "4096", "/dev/zero"), QUICK)
    with answer:
        assert (status, answer.size) == (0, 4096)
    with pytest.raises(KeyquorumError, match="wrote more"):
        run.run_for_secret(("head", "-c", "4097", "/dev/zero"), QUICK)


def test_endless_error_output_neither_blocks_nor_fills_memory() -> None:
    done = shell("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo done")
    assert done.output == b"done\n"
    assert len(done.errors) == 200


def test_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 300 & echo $! $$ >{pids}; wait; wait"
    started = time.monotonic()
    with pytest.raises(KeyquorumError, match=r"^sh did not finish within 3 s$"):
        shell(script, Limits(seconds=3))
    assert time.monotonic() - started < 30
    assert len(pids.read_text().split()) == 2
    assert not any(lives_on(int(pid)) for pid in pids.read_text().split())


def test_a_polite_program_may_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_GRACE", 30.0)
    trace = tmp_path / "trace"
    with pytest.raises(KeyquorumError, match="did not finish"):
        shell(f"trap 'echo cleaned >{trace}; exit' TERM; while :; do sleep 0.05; done", Limits(seconds=3.0))
    assert trace.read_text() == "cleaned\n"


def test_what_a_finished_program_leaves_in_its_group_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    done = shell(f"sleep 300 & echo $! >{pids}; echo ready")  # the sleeper holds the output pipe open
    assert (done.status, done.output) == (0, b"ready\n")
    assert time.monotonic() - started < 5
    assert not lives_on(int(pids.read_text()))


def test_calling_off() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    started = time.monotonic()
    try:
        with pytest.raises(KeyquorumError, match=r"^sleep was called off$"):
            run.run(("sleep", "300"), Limits(seconds=60, cancel=read_end))
    finally:
        os.close(read_end)
        os.close(write_end)
    assert time.monotonic() - started < 10


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    shell("true")
    with pytest.raises(KeyquorumError):
        shell("sleep 9", Limits(seconds=0.1))
    assert len(os.listdir("/proc/self/fd")) == len(before)
