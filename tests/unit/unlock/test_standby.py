# SPDX-License-Identifier: Apache-2.0
"""The child that a boot leaves watching: forked before any thread, told by a pipe (docs/boot.md §9)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import keyquorum
from keyquorum.linux import boot_record
from keyquorum.unlock import standby
from keyquorum.unlock.remote import Pacing

AGENT = Path(keyquorum.__file__).parent.parent
SECONDS = 60

# A boot whose holders leave a thread behind that holds a lock; whoever watches needs that lock.
BOOT = """
import _thread, os, sys, time
from keyquorum import secret, settings
from keyquorum.linux import boot_record
from keyquorum.model.report import Report
from keyquorum.unlock import linger, main
from keyquorum.unlock.proxy import Proxy

outcome, said = sys.argv[1], sys.argv[2]
lock = _thread.allocate_lock()
main.load = lambda: settings.parse("linger = " + sys.argv[3])
main.boot_record.keep_report = lambda report: None
linger.PID_FILES = os.path.dirname(said)


def hang():
    lock.acquire()
    time.sleep(600)


def unlock(proxy):
    _thread.start_new_thread(hang, ())
    while not lock.locked():
        time.sleep(0.01)
    if outcome == "stuck":
        os.write(2, b"stuck\\n")
        time.sleep(600)
    return Report(command="unlock", device="x", volume="", name="root", outcome=outcome, exit_code=0, missing=1,
        verdicts=())


def watch(proxy, at_once):
    free = lock.acquire(timeout=20)
    session = os.getsid(0) == os.getpid()
    null = {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
    with open(said + ".new", "w") as file:
        file.write(f"{free} {session} {null == {'/dev/null'}} {at_once} {secret._arena is None}")
    os.rename(said + ".new", said)


Proxy.unlock, linger._watch = unlock, watch
code = main.command("unlock", ["/dev/null", "--name", "root", "--volume", "6d1c7d1e-5ab0-4d6f-8b0e-000000000001", "--boot"])
os._exit(code)
"""


def boot(tmp_path: Path, outcome: str, linger: str = "yes") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", BOOT, outcome, str(tmp_path / "said"), linger],
        env={"PYTHONPATH": str(AGENT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until(path: Path) -> str:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < end, "nobody watched"
        time.sleep(0.02)
    return path.read_text()


def test_a_boot_that_falls_back_is_watched_by_a_child_without_its_threads(tmp_path: Path) -> None:
    with boot(tmp_path, "failed") as process:
        out, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (0, b"")
        assert until(tmp_path / "said") == "True True True False True", "the last: no memory for secrets of ours"


@pytest.mark.parametrize(("outcome", "linger"), [("opened", "yes"), ("failed", "no")])
def test_nobody_watches_where_nobody_needs_to(tmp_path: Path, outcome: str, linger: str) -> None:
    with boot(tmp_path, outcome, linger) as process:
        process.communicate(timeout=SECONDS)
    gone(tmp_path)
    assert not (tmp_path / "said").exists()


def test_a_boot_that_is_killed_leaves_no_child(tmp_path: Path) -> None:
    with boot(tmp_path, "stuck") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"stuck\n"
        assert len(alive(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
    gone(tmp_path)
    assert not (tmp_path / "said").exists()


def test_a_system_without_descriptors_or_processes_boots_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(boot_record, "to_kernel_log", said.append)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("fork", "pipe2"):

        def refuse(*_: object) -> None:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        monkeypatch.setattr(os, name, refuse)
        assert standby.stand_by(lambda _at_once, _asked: None) is None
    assert len(said) == 2
    assert len(os.listdir("/proc/self/fd")) == before


def alive(tmp_path: Path) -> list[str]:
    """The processes of this test's boot."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            if os.fsencode(tmp_path) in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(name)
    return found


def gone(tmp_path: Path) -> None:
    end = time.monotonic() + SECONDS
    while alive(tmp_path):
        assert time.monotonic() < end, "the child stays"
        time.sleep(0.02)


def test_what_one_process_asked_the_next_one_knows() -> None:
    now = time.monotonic()
    before, after = Pacing(lambda: 0.5), Pacing(lambda: 0.5)
    fragment = (bytes(range(16)), 3)
    before.note(fragment, now, refused=False, retry_after=500.0)
    after.take(before.rows())
    assert not after.may_ask(fragment, now + 499)
    assert after.may_ask(fragment, now + 600)
    after.note(fragment, now, refused=False)
    assert not after.may_ask(fragment, now + 9), "the second failure in a row: ten seconds"
