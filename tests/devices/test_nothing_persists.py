# SPDX-License-Identifier: Apache-2.0
"""Nothing secret leaves the process: every write, message and program start of real commands is recorded (I1)."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from devices.bench import PASSPHRASE, cryptsetup
from keyquorum import settings
from keyquorum.holders.contract import Tuning
from keyquorum.linux.answers import LocalAnswers
from keyquorum.linux.private_header import copy_header
from keyquorum.sharing import tree
from keyquorum.sharing.commitment import BLIND_SIZE
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.verified_set import verify_enrolment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devices.bench import Bench

CALLS = (
    "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,execve,execveat,symlink,rename,openat,ioctl,add_key"
)


def traced(bench: Bench, *words: str) -> str:
    """Run a command under strace; give everything that it handed to the kernel, as strace writes it: \\x41\\x42."""
    program, trace = shutil.which("strace"), bench.path("trace")
    assert program, "strace is not installed: apt-get install strace"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "KEYQUORUM_CONFIG": bench.path("keyquorum.conf")}
    strace = [program, "-f", "-v", "-xx", "-s", str(1 << 22), "-o", trace, "-e", f"trace={CALLS}"]
    done = subprocess.run(
        [*strace, sys.executable, "-m", "keyquorum.cli.main", *words],
        env=environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    with open(trace, encoding="ascii") as file:
        return file.read()


def written(text: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text)


def forms(secret: bytes) -> Iterator[str]:
    """The ways a secret may have been written down; base64 without its ends, which depend on the place."""
    yield written(secret)
    yield written(secret.hex().encode())
    yield written(secret.hex().upper().encode())
    for shift in range(3):
        yield written(base64.b64encode(bytes(shift) + secret)[4:-4])


def secrets_of(volume: str) -> dict[str, bytes]:
    """What opens a volume, found out by its holders and by cryptsetup."""
    with copy_header(volume) as header:
        enrolment = verify_enrolment(header, settings.load().volumes)
    context = Context(answers=LocalAnswers(), tuning=Tuning(), now=int(time.time()), tell=lambda _verdict: None)
    limits = Limits(holder=20.0, person=1.0, deadline=time.monotonic() + 20.0, everyone=True)
    found, points = {"the passphrase": PASSPHRASE}, {}
    size = enrolment.volume_set.secret_size
    with contextlib.closing(Gathering(enrolment, context, limits)) as gathering:
        gathering.ask_unattended()
        for index, share in gathering.shares.items():
            found[f"blind {index}"] = bytes(share.view[:BLIND_SIZE])
            found[f"share {index}"] = bytes(share.view[BLIND_SIZE:])
            with share.part(BLIND_SIZE, size) as point:
                points[index] = point.integer()
        combined = tree.combine(enrolment.volume_set.policy, dict(list(points.items())[:2]), size)
    key_file = f"{volume}.key"
    cryptsetup(
        "luksDump", "--dump-volume-key", "--volume-key-file", key_file, "--key-file", "-", volume, data=PASSPHRASE
    )
    with open(key_file, "rb") as file:
        found["the volume key"] = file.read()
    os.unlink(key_file)
    found["what was split"] = combined.to_bytes(size, "little")
    return found


def leaks(secrets: dict[str, bytes], trace: str) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in trace for form in forms(secret))]


@pytest.mark.parametrize("options", [(), ("--direct",), ("--with-keyslot",)])
def test_neither_enrolment_nor_gathering_hands_a_secret_to_anybody(bench: Bench, options: tuple[str, ...]) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{number}") for number in range(3)]
    words = ("--policy", bench.policy(disks), "--key-file", bench.key_file, "--yes")
    traces = [traced(bench, "enroll", volume, *words, *options)]
    secrets = secrets_of(volume)
    assert len(secrets) == 9
    assert secrets["the volume key"] == secrets["what was split"] or "--direct" not in options
    traces.append(traced(bench, "check", volume, "--json"))
    for trace in traces:
        assert leaks(secrets, trace) == []


def test_what_is_written_would_be_seen(bench: Bench) -> None:
    volume, disks = bench.volume(), [bench.disk("a"), bench.disk("b")]
    trace = traced(bench, "enroll", volume, "--policy", bench.policy(disks), "--key-file", bench.key_file, "--yes")
    envelope = bench.entries(disks[0])[0].envelope
    assert leaks({"payload": envelope["payload"].encode(), "file": bench.key_file.encode()}, trace) == [
        "payload",
        "file",
    ]
    for form in forms(PASSPHRASE):
        assert leaks({"passphrase": PASSPHRASE}, f"write(3, {form}, 5)") == ["passphrase"]
