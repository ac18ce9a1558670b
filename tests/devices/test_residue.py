# SPDX-License-Identifier: Apache-2.0
"""What is left in the memory of a process that enrolled a volume, or asked its holders (I1, docs/threats.md §4).

The commands run in a process that then waits. Everything it may read is searched: the heap with what was freed, the
stacks of its threads, the libraries' data.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from boots.known_secrets import Whole
from devices.tpm_emulator import Emulator
from guests.disk_image import MEBIBYTE, empty_image
from guests.luks_image import TEST_VOLUME, format_luks
from guests.memory import BASE64, HEX, INTEGER, PAGE, RAW, copies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from devices.bench import Bench

COMMANDS = """
import contextlib, io, json, sys
from keyquorum.cli.main import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    assert code == 0, (words, code)
print("done", flush=True)
sys.stdin.readline()
"""
PLANTED = "planted in a process"
PLANT = f"""
import base64, hashlib, sys
key = hashlib.sha512({PLANTED.encode()!r}).digest()
kept = [key.hex(), *(base64.b64encode(bytes(n) + key) for n in range(3)), int.from_bytes(key, "little")]
print("done", flush=True)
sys.stdin.readline()
"""


def memory_after(directory: str, script: str, *arguments: str, keep_open: Sequence[int] = ()) -> str:
    """Run a script in an interpreter of its own until it says that it is done; give a file with all its memory."""
    path = os.path.join(directory, "memory")
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", script, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=environment, pass_fds=keep_open) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        with (
            open(f"/proc/{process.pid}/maps") as maps,
            open(f"/proc/{process.pid}/mem", "rb", 0) as memory,
            open(path, "wb") as dump,
        ):
            for line in maps:
                first, last = (int(end, 16) for end in line.split()[0].split("-"))
                if line.split()[1].startswith("rw") and "secretmem" not in line:
                    memory.seek(first)
                    dump.write(memory.read(last - first) + bytes(PAGE))
        process.stdin.close()
    return path


POLICY = """\
version = 1
threshold = 2
of = ["disk-1", "tpm", "disk-2"]
[holder.disk-1]
kind = "disk"
device = "{0}"
[holder.tpm]
kind = "tpm"
pcrs = [7]
[holder.disk-2]
kind = "disk"
device = "{1}"
"""


@pytest.mark.parametrize("options", [[], ["--with-keyslot"], ["--direct"]])
def test_what_an_enrolment_and_an_unlock_leave(
    bench: Bench, options: list[str], record_property: Callable[[str, object], None]
) -> None:
    volume = bench.path("volume.img")
    format_luks(empty_image(volume, 20 * MEBIBYTE), TEST_VOLUME)
    bench.volumes.append(TEST_VOLUME.uuid)
    disks = (bench.disk("disk-1"), bench.disk("disk-2"))
    policy = bench.write("policy.toml", POLICY.format(*disks))
    with Emulator(bench.path("tpm")) as chip:
        with open(bench.path("keyquorum.conf"), "a") as conf:
            conf.write(f"tpm_device = {chip.device}\n")
        enroll = ["enroll", volume, "--policy", policy, "--key-file", bench.key_file, "--yes", *options]
        for commands in ([enroll, ["check", volume, "--json"]], [["check", volume]]):
            dump = memory_after(bench.root, COMMANDS, json.dumps(commands))
            with open(bench.anchor(volume), "rb") as anchor:
                whole = Whole(volume, anchor.read(), disks, chip.device)
            found = copies(dump, whole.secrets(TEST_VOLUME.volume_key))
            record_property(f"integers after {len(commands)} commands", str(found))
            assert {key: count for key, count in found.items() if key[1] != INTEGER} == {}, commands


PASSPHRASE = b"four random words, by a person"
PEOPLE = """\
version = 1
threshold = 2
of = ["disk-1", "person", "paper"]
[holder.disk-1]
kind = "disk"
device = "{0}"
[holder.person]
kind = "passphrase"
memory = 8
passes = 1
[holder.paper]
kind = "sheet"
"""


def test_what_people_give_is_not_kept(bench: Bench) -> None:
    """A passphrase and a sheet, from descriptors; all holders are asked, and the volume key is rebuilt."""
    volume, sheets = bench.volume(), bench.path("sheets")
    os.mkdir(sheets)
    policy = bench.write("policy.toml", PEOPLE.format(bench.disk("disk-1")))
    with open(bench.write("passphrase", PASSPHRASE)) as given:
        said = bench.enroll(volume, policy, "--sheet-dir", sheets, f"--pin-fd=person={given.fileno()}")
    assert said.code == 0, said.err
    with open(os.path.join(sheets, "sheet-1.txt")) as sheet:
        lines = [line.split()[2].encode() for line in sheet if line.startswith("  line ")]
    assert len(lines) == 5
    secrets = {f"line {number}": line for number, line in enumerate(lines, 1)} | {"passphrase": PASSPHRASE}
    secrets |= {f"{name} without dashes": line.replace(b"-", b"") for name, line in secrets.items()}
    with open(bench.path("passphrase")) as person, open(bench.write("lines", b"\n".join(lines) + b"\n")) as paper:
        descriptors = {"person": person.fileno(), "paper": paper.fileno()}
        words = ["check", volume, *(f"--pin-fd={name}={number}" for name, number in descriptors.items())]
        dump = memory_after(bench.root, COMMANDS, json.dumps([words]), keep_open=list(descriptors.values()))
    assert copies(dump, secrets) == {}


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    found = copies(memory_after(str(tmp_path), PLANT), {PLANTED: hashlib.sha512(PLANTED.encode()).digest()})
    assert {form for _, form in found} == {RAW, HEX, BASE64, INTEGER}
