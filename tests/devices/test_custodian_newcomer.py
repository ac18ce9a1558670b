# SPDX-License-Identifier: Apache-2.0
"""Following only the README: a custodian on this machine, and a volume enrolled against it by an invitation.

The commands are the README's. Told beside them are which file stands for the volume, what a person would type, and
another port, because other tests run at the same time.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boots.person import fenced_commands
from devices.bench import Bench, opens_with
from devices.tpm_emulator import Emulator, free_ports
from devices.tpm_support import extend

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


class Newcomer:
    """Somebody at a shell, in a directory of their own."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.volume = bench.volume()
        self.port = free_ports()
        self._serving: list[subprocess.Popen[bytes]] = []
        self._said = Path(bench.path("custodian-said"))

    def types(self, heading: str) -> list[subprocess.CompletedProcess[str]]:
        """Type the commands of a section one after the other; `&` is waited for as the text around it says."""
        blocks = fenced_commands((REPOSITORY / "README.md").read_text(encoding="utf-8"), heading)
        return [done for block in blocks for line in block.splitlines() if (done := self._type(line)) is not None]

    def _type(self, line: str) -> subprocess.CompletedProcess[str] | None:
        words = shlex.split(line.removesuffix(" &").replace("/dev/vdb", self.volume))
        assert words[0] == "keyquorum"
        if words[1:3] == ["custodian", "init"]:
            words += ["--listen", f"127.0.0.1:{self.port}", "--monitor", "none"]
        if words[1] == "enroll":
            words += ["--yes", "--key-file", self.bench.key_file]
        command = [sys.executable, "-m", "keyquorum.cli.main", *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "agent")}
        if line.endswith(" &"):
            with self._said.open("wb") as out:
                self._serving.append(
                    subprocess.Popen(command, cwd=self.bench.root, env=environment, stdout=out, stderr=out)
                )
            self._await_service()
            return None
        return subprocess.run(
            command, cwd=self.bench.root, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def _await_service(self) -> None:
        end = time.monotonic() + PATIENCE
        while " serves, by " not in self._said.read_text():
            assert self._serving[-1].poll() is None, self._said.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self) -> None:
        """End the custodian."""
        for process in self._serving:
            process.terminate()
            process.wait(PATIENCE)
        self._serving.clear()


@pytest.fixture
def newcomer(bench: Bench, tpm: Emulator) -> Iterator[Newcomer]:
    made = Newcomer(bench)
    yield made
    made.stop()


def entries(bench: Bench) -> list[tuple[str, str]]:
    said = bench.run("custodian", "log", "--directory", bench.path("custodian"), "--json")
    return [(found["act"], found["machine"]) for found in said.json["entries"]]


def test_following_only_the_readme(newcomer: Newcomer, bench: Bench, tpm: Emulator) -> None:
    done = newcomer.types("A custodian, tried on one machine")
    assert [found.returncode for found in done] == [0] * len(done), [found.stderr for found in done]
    assert "would open: 2 of 2 fragments are valid" in done[-2].stderr + done[-2].stdout
    assert "this custodian is for trial" in done[0].stderr
    host = socket.gethostname()
    acts = entries(bench)
    assert acts[1:5] == [
        ("offered-enrolment", host),
        ("enrolled-machine", host),
        ("admitted-owner", host),
        ("deposited", host),
    ]
    assert ("released", host) in acts
    assert os.stat(bench.path("invitation.json")).st_mode & 0o777 == 0o600

    # The key in the token, without a kernel that could map the volume: the quorum lets a passphrase in.
    new = bench.write("new", b"another passphrase")
    said = bench.run("recover", newcomer.volume, "--add-passphrase", "--new-key-file", new, "--no-prompt")
    assert said.code == 0, said.err
    assert opens_with(newcomer.volume, b"another passphrase")

    # A second volume takes the same invitation, because the machine is enrolled by now; nobody is enrolled again.
    second = bench.volume("second.img")
    words = ("--custodian", bench.path("invitation.json"), "--yes", "--key-file", bench.key_file)
    said = bench.run("enroll", second, *words)
    assert said.code == 0, said.err
    assert [act for act, _ in entries(bench)].count("enrolled-machine") == 1

    # Another system does not get it, and without the custodian there is no quorum.
    extend(tpm.device, 7)
    assert bench.run("check", "--json", "--no-prompt", second).code == 3
    tpm.restart()
    newcomer.stop()
    said = bench.run("check", "--json", newcomer.volume)
    rows = {row["name"]: row["verdict"] for row in said.json["holders"]}
    assert (said.code, rows["tpm"], rows["custodian"]) == (3, "valid", "unavailable")


def trial(bench: Bench, *words: str) -> tuple[int, str]:
    said = bench.run("custodian", "init", "--directory", bench.path("site"), *words)
    return said.code, said.err


def test_what_makes_no_trial(bench: Bench, tpm: Emulator) -> None:
    code, said = trial(bench)
    assert (code, "--trial FILE" in said) == (2, True)
    there = bench.write("there.json", b"somebody's")
    code, said = trial(bench, "--trial", there)
    assert (code, "no invitation is overwritten" in said) == (2, True)
    tpm.stop()
    assert trial(bench, "--trial", bench.path("new.json"))[0] != 0
    assert not os.path.exists(bench.path("site")), "nothing was made"
    assert not os.path.exists(bench.path("new.json"))
    assert Path(there).read_bytes() == b"somebody's"


def test_an_invitation_is_for_the_tpm_that_made_it_and_for_one_time(
    newcomer: Newcomer, bench: Bench, tpm: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another TPM with the same file is refused; so is a second machine after the first."""
    heading = "A custodian, tried on one machine"
    blocks = fenced_commands((REPOSITORY / "README.md").read_text(encoding="utf-8"), heading)
    for line in blocks[0].splitlines():
        newcomer._type(line)
    words = ("--custodian", bench.path("invitation.json"), "--yes", "--key-file", bench.key_file)
    own = Path(bench.path("keyquorum.conf")).read_text(encoding="utf-8").replace(bench.path("machine.json"), "MACHINE")
    with Emulator(bench.path("another")) as other:
        conf = own.replace(tpm.device, other.device).replace("MACHINE", bench.path("other.json"))
        elsewhere = bench.write("other.conf", conf)
        with monkeypatch.context() as there:
            there.setenv("KEYQUORUM_CONFIG", elsewhere)
            said = bench.run("enroll", newcomer.volume, *words)
        assert said.code not in {0, 2}, said.err
        assert "the machine's keys do not hold" in said.err
        assert not os.path.exists(bench.path("other.json"))
        said = bench.run("enroll", newcomer.volume, *words)
        assert said.code == 0, said.err
        with monkeypatch.context() as there:
            there.setenv("KEYQUORUM_CONFIG", elsewhere)
            said = bench.run("enroll", bench.volume("second.img"), *words)
        assert said.code != 0
        assert "the token is spent" in said.err
    assert ("denied", socket.gethostname()) in entries(bench)


def test_an_invitation_says_where_and_only_once(bench: Bench, newcomer: Newcomer) -> None:
    newcomer._type("keyquorum custodian init --trial invitation.json --directory custodian")
    table = json.loads(Path(bench.path("invitation.json")).read_bytes())
    assert table["addresses"] == [f"127.0.0.1:{newcomer.port}"]
    said = bench.run("enroll", newcomer.volume, "--custodian", bench.path("invitation.json"), "--policy", "x")
    assert said.code == 2
    for wrong in (["127.0.0.1"], [1], ["a:1", "a:1"], "a:1", ["a:1"] * 9):
        path = bench.write("wrong.json", json.dumps(table | {"addresses": wrong}))
        assert bench.run("enroll", newcomer.volume, "--custodian", path, "--yes").code == 2
