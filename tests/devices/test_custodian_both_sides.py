# SPDX-License-Identifier: Apache-2.0
"""Operator and machine by their command lines, the custodian's own server between them, and a TPM emulator.

Everything is real: invitation, enrolment, deposit, the proof at an enrolment's end, release, approval, revocation.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices.custodian_site import ORIGIN, Running
from devices.test_custodian_enrolment import policy as write_papers
from devices.tpm_emulator import Emulator
from keyquorum.initramfs import main as boot_image
from keyquorum.linux import owner_key
from keyquorum.unlock import remote
from keyquorum.unlock.remote import Pacing
from unit.custodian.notes import private

if TYPE_CHECKING:
    from devices.bench import Bench, Said

MACHINE = "db-9"


class Sides:
    """What an operator types and what a machine's administrator types."""

    def __init__(self, bench: Bench, custodian: Running, tpm: Emulator, patch: pytest.MonkeyPatch) -> None:
        self.bench, self.custodian, self.tpm, self._patch = bench, custodian, tpm, patch

    def operator(self, *words: str) -> Said:
        return self.bench.run("custodian", *words, "--directory", self.custodian.site.directory)

    def machine(self, *words: str) -> Said:
        """As a process of its own: a command wipes every secret of this one at its end."""
        self._patch.setattr(remote, "PACING", Pacing(lambda: 0.5))
        self.custodian.reopen()
        return self.bench.run(*words)

    def enrol(self) -> None:
        shown = self.machine("machine", "show", "--json")
        assert shown.code == 0, shown.err
        words = ("enroll-machine", MACHINE, "--ek", shown.json["endorsement_key"], "--json")
        invited = self.operator(*words)
        assert invited.code == 0, invited.err
        path = self.bench.write("invitation.json", invited.out)
        said = self.machine("machine", "enroll", "--invitation", path, "--address", f"127.0.0.1:{self.custodian.port}")
        assert said.code == 0, said.err

    def volume(self, tmp_path: Path, **release: str) -> str:
        """A volume of two disks and the custodian, any two, that lost one of its disks after its enrolment."""
        path = self.bench.volume("vol.img", "--luks2-metadata-size", "64k")
        volume = self.bench.volumes[-1]
        write_papers(tmp_path, self.tpm, volumes=f'["{volume}"]', machines=f'["{MACHINE}"]', **release)
        policy = self.bench.policy([self.bench.disk("disk-1"), self.bench.disk("disk-2")])
        with open(policy, encoding="utf-8") as file:
            text = file.read().replace('of = ["disk-1", "disk-2"]', 'of = ["disk-1", "disk-2", "eu"]')
        text += f'[holder.eu]\nkind = "custodian"\nid = "{ORIGIN}"\n'
        text += f'release = "{tmp_path / "release.toml"}"\nreference = "{tmp_path / "reference.json"}"\n'
        self.custodian.reopen()
        self._patch.setattr(remote, "PACING", Pacing(lambda: 0.5))
        said = self.bench.enroll(path, self.bench.write("policy.toml", text))
        assert said.code == 0, said.err
        os.rename(self.bench.path("disk-1"), self.bench.path("away"))
        return path

    def deposits(self) -> int:
        rows = self.operator("list", "--json").json["machines"]
        return int(next(row["deposits"] for row in rows if row["name"] == MACHINE))

    def asked(self, volume: str) -> tuple[int, str, str]:
        """Exit code of a check, the custodian's verdict and its reason."""
        said = self.machine("check", "--json", volume)
        row = next(row for row in said.json["holders"] if row["name"] == "eu")
        return said.code, row["verdict"], row["reason"]


@pytest.fixture
def sides(bench: Bench, custodian: Running, tpm: Emulator, monkeypatch: pytest.MonkeyPatch) -> Sides:
    return Sides(bench, custodian, tpm, monkeypatch)


def test_a_lost_disk_is_made_up_for_until_the_machine_is_revoked(sides: Sides, tmp_path: Path) -> None:
    sides.enrol()
    volume = sides.volume(tmp_path)
    assert sides.asked(volume)[:2] == (0, "valid")
    assert sides.operator("revoke", MACHINE, "--yes").code == 0
    code, verdict, reason = sides.asked(volume)
    assert (code, verdict) == (3, "refused")
    assert "revoked" in reason


def test_a_person_lets_the_request_through(sides: Sides, bench: Bench, tmp_path: Path) -> None:
    sides.enrol()
    key = bench.write("anna.key", owner_key.pem(private(30)))
    public = private(30).public_key().public_bytes_raw().hex()
    approvals = f'{{ needed = 1, of = {{ anna = "{public}" }}, within = "1h" }}'
    volume = sides.volume(tmp_path, approvals=approvals)
    code, verdict, reason = sides.asked(volume)
    assert (code, verdict) == (3, "waiting")
    number = reason.rpartition(" ")[2]
    assert sides.operator("approve", number, "--as", "anna", "--key", key).code == 0
    assert sides.asked(volume)[:2] == (0, "valid")
    assert sides.asked(volume)[:2] == (3, "waiting"), "an approval is used up"


def test_a_custodian_that_is_gone_is_unavailable(sides: Sides, tmp_path: Path) -> None:
    sides.enrol()
    volume = sides.volume(tmp_path)
    sides.custodian.stop_accepting()
    sides.custodian.server.stop()
    code, verdict, reason = sides.asked(volume)
    assert (code, verdict) == (3, "unavailable")
    assert f"127.0.0.1:{sides.custodian.port}: connection refused" in reason


def test_unenrolling_ends_the_deposit(sides: Sides, tmp_path: Path) -> None:
    sides.enrol()
    volume = sides.volume(tmp_path)
    assert sides.deposits() == 1
    said = sides.machine("unenroll", volume, "--yes")
    assert said.code == 0, said.err
    assert "eu keeps" not in said.err
    assert sides.deposits() == 0


def test_unenrolling_without_the_owners_key_says_that_the_deposit_stays(sides: Sides, tmp_path: Path) -> None:
    sides.enrol()
    volume = sides.volume(tmp_path)
    os.unlink(sides.bench.path("owner.key"))
    said = sides.machine("unenroll", volume, "--yes")
    assert said.code == 0
    assert "eu keeps a fragment that opens nothing any more: only the owner may end a deposit" in said.err
    assert sides.deposits() == 1


def test_an_enrolment_that_fails_takes_its_deposit_back(sides: Sides, tmp_path: Path) -> None:
    sides.enrol()
    far = (dt.datetime.now(dt.UTC) + dt.timedelta(days=3)).strftime("%a").lower()
    with pytest.raises(AssertionError, match="denies it"):
        sides.volume(tmp_path, hours=f'{{ days = "{far}", from = "00:00", to = "00:01", zone = "UTC" }}')
    sides.custodian.reopen()
    assert sides.deposits() == 0


_FROM_THE_IMAGE = """
import sys
image, agent, dynamic, volume = sys.argv[1:]
sys.path[:] = [image + agent, image + sys.path[1], dynamic]
assert not any(name.startswith("keyquorum") for name in sys.modules)
from keyquorum.unlock.main import command
code = command("check", ["--json", volume])
assert sys.modules["keyquorum.native.tls"].__file__.startswith(image)
sys.exit(code)
"""


def test_what_a_boot_image_carries_is_enough_to_ask(sides: Sides, tmp_path: Path) -> None:
    """The modules that the hook put into an image, and no others, check the volume with the custodian's fragment."""
    sides.enrol()
    volume = sides.volume(tmp_path)
    image = tmp_path / "image"
    (image / "cryptroot").mkdir(parents=True)
    (image / "cryptroot/crypttab").write_text(f"root {volume} none luks\n")
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert boot_image.main([str(image)]) == 0
    lines = told.getvalue().splitlines()
    assert [line for line in lines if line.startswith("note ")] == []
    assert any(line.startswith("exec ") and line.endswith("/libssl.so.3") for line in lines)
    machine = sides.bench.path("machine.json")
    assert f"file {machine} {machine}" in lines
    sides.custodian.reopen()
    agent = str(Path(boot_image.__file__).parents[2])
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _FROM_THE_IMAGE,
            str(image),
            agent,
            str(sysconfig.get_config_var("DESTSHARED")),
            volume,
        ],
        env={"KEYQUORUM_CONFIG": sides.bench.path("keyquorum.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row["verdict"] for row in json.loads(done.stdout)["holders"]}
    assert (rows["eu"], rows["disk-1"]) == ("valid", "unavailable")
