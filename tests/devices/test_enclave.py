# SPDX-License-Identifier: Apache-2.0
"""The holder `enclave` by the command line: a TPM emulator, real TLS, reports of a processor of software."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devices.custodian_site import ORIGIN, Running
from devices.enclave_stand_in import SoftwareProcessor, prove
from devices.test_custodian_both_sides import MACHINE, Sides
from devices.test_custodian_enrolment import policy as write_papers
from devices.tpm_emulator import Emulator
from keyquorum.holders import enclave_where
from keyquorum.initramfs import main as boot_image
from keyquorum.unlock import remote
from keyquorum.unlock.remote import Pacing

if TYPE_CHECKING:
    from devices.bench import Bench, Said


class Enclave(Sides):
    """Both sides of a custodian that is an enclave, and the processor in which it pretends to run."""

    processor = SoftwareProcessor()

    def lay_down(self, **appraisal: Any) -> str:
        """Write test roots and the signed appraisal policy; return the policy's path."""
        self.bench.write("roots.pem", self.processor.roots)
        plain = self.bench.write("appraisal.json", self.processor.appraisal(**appraisal))
        path = self.bench.path("appraisal.signed")
        said = self.bench.run("attest", "policy", "sign", plain, "--out", path)
        assert said.code == 0, said.err
        return path

    def machine(self, *words: str) -> Said:
        """As a process of its own: a command wipes every secret of this one at its end."""
        self._patch.setattr(remote, "PACING", Pacing(lambda: 0.5))
        self.custodian.reopen()
        return self.bench.run(*words)

    def enrolled(self, tmp_path: Path, *, test_roots: bool = True) -> tuple[str, Said]:
        """A volume of two disks and the enclave, any two; and what its enrolment said."""
        volume = self.bench.volume("vol.img", "--luks2-metadata-size", "64k")
        uuid = self.bench.volumes[-1]
        write_papers(tmp_path, self.tpm, volumes=f'["{uuid}"]', machines=f'["{MACHINE}"]')
        policy = self.bench.policy([self.bench.disk("disk-1"), self.bench.disk("disk-2")])
        with open(policy, encoding="utf-8") as file:
            text = file.read().replace('of = ["disk-1", "disk-2"]', 'of = ["disk-1", "disk-2", "eu"]')
        text += f'[holder.eu]\nkind = "enclave"\nid = "{ORIGIN}"\n'
        text += f'release = "{tmp_path / "release.toml"}"\nreference = "{tmp_path / "reference.json"}"\n'
        text += f'appraisal = ["{self.lay_down()}"]\ncollateral = "{self.bench.path("store")}"\n'
        text += f'test_roots = "{self.bench.path("roots.pem")}"\n' if test_roots else ""
        self.custodian.reopen()
        self._patch.setattr(remote, "PACING", Pacing(lambda: 0.5))
        said = self.bench.enroll(volume, self.bench.write("policy.toml", text))
        return volume, said

    def without_a_disk(self, tmp_path: Path) -> str:
        volume, said = self.enrolled(tmp_path)
        assert said.code == 0, said.err
        os.rename(self.bench.path("disk-1"), self.bench.path("away"))
        return volume


@pytest.fixture
def enclave(bench: Bench, custodian: Running, tpm: Emulator, monkeypatch: pytest.MonkeyPatch) -> Enclave:
    made = Enclave(bench, custodian, tpm, monkeypatch)
    made.processor = SoftwareProcessor()
    prove(custodian, made.processor)
    made.enrol()
    return made


def test_a_volume_opens_with_an_enclave_and_test_roots_are_told_everywhere(enclave: Enclave, tmp_path: Path) -> None:
    volume, enrolment = enclave.enrolled(tmp_path)
    assert enrolment.code == 0, enrolment.err
    assert f"eu will be {enclave_where.LOUD}" in enrolment.err
    os.rename(enclave.bench.path("disk-1"), enclave.bench.path("away"))
    before = enclave.processor.collected
    assert enclave.asked(volume) == (0, "valid", enclave_where.LOUD)
    assert enclave.processor.collected == before + 1, "one question, one report"
    said = enclave.machine("check", volume)
    assert enclave_where.LOUD in said.err
    assert f"eu is {enclave_where.LOUD}" in enclave.machine("status", volume).out
    assert enclave.machine("status", volume, "--json").json["volumes"][0]["test_roots"] == ["eu"]


REPORTS: dict[str, tuple[dict[int, bytes], str]] = {
    "another guest": ({0x90: bytes(48)}, "snp.measurement"),
    "debugging": ({0x08: (1 << 17 | 1 << 19 | 1 << 20 | 0xF << 22 | 0x0131).to_bytes(8, "little")}, "snp.policy.debug"),
}


@pytest.mark.parametrize("report", REPORTS)
def test_another_guest_gets_no_evidence_of_this_machine(enclave: Enclave, tmp_path: Path, report: str) -> None:
    """It is refused by name, and neither a challenge nor a release was asked of it."""
    volume = enclave.without_a_disk(tmp_path)
    entries = enclave.operator("status", "--json").json
    enclave.processor.report, check = REPORTS[report]
    code, verdict, reason = enclave.asked(volume)
    assert (code, verdict) == (3, "tampered")
    assert f"{ORIGIN} is not the enclave that it should be: {check}" in reason
    assert enclave.operator("status", "--json").json == entries, "nothing was decided"


def test_nothing_is_deposited_in_another_guest(enclave: Enclave, tmp_path: Path) -> None:
    enclave.processor.report = {0x90: bytes(48)}
    _, said = enclave.enrolled(tmp_path)
    assert said.code != 0
    assert "snp.measurement" in said.err
    assert enclave.deposits() == 0


def test_real_roots_are_believed_where_no_others_are_given(enclave: Enclave, tmp_path: Path) -> None:
    _, said = enclave.enrolled(tmp_path, test_roots=False)
    assert said.code != 0
    assert "snp.chain.root" in said.err
    assert "TEST ROOTS" not in said.err
    assert enclave.deposits() == 0


def test_a_custodian_that_stops_proving_itself_is_unavailable(enclave: Enclave, tmp_path: Path) -> None:
    volume = enclave.without_a_disk(tmp_path)
    prove(enclave.custodian, None)
    code, verdict, reason = enclave.asked(volume)
    assert (code, verdict) == (3, "unavailable")
    assert "does not prove what it is" in reason


def test_an_enclave_behind_another_key_is_refused(enclave: Enclave, tmp_path: Path) -> None:
    """What the proof is bound to is the key that TLS was spoken with, as the machine saw it."""
    volume = enclave.without_a_disk(tmp_path)
    enclave.custodian.reopen()
    real = enclave.custodian.site.prover

    def foreign(office: Any, collector: Any) -> Any:
        from dataclasses import replace

        return replace(real(office, collector), tls_key=b"of the server before it")

    enclave._patch.setattr(enclave.custodian.site, "prover", foreign)
    code, verdict, reason = enclave.asked(volume)
    assert (code, verdict) == (3, "tampered")
    assert "snp.report-data" in reason


_FROM_THE_IMAGE = """
import sys
image, dynamic, volume, *paths = sys.argv[1:]
sys.path[:] = [*(image + path for path in paths), image + sys.path[1], dynamic]
assert not any(name.startswith("keyquorum") for name in sys.modules)
from keyquorum.unlock.main import command
assert "cryptography" not in sys.modules
code = command("check", ["--json", volume])
assert sys.modules["keyquorum.holders.enclave_proof"].__file__.startswith(image)
assert sys.modules["cryptography"].__file__.startswith(image)
sys.exit(code)
"""


def test_what_a_boot_image_carries_is_enough_to_judge(enclave: Enclave, tmp_path: Path) -> None:
    """The modules that the hook put into an image, and no others, judge the enclave and check the volume."""
    volume = enclave.without_a_disk(tmp_path)
    os.mkdir(enclave.bench.path("store"))
    enclave.bench.write("store/snp-Milan.pem", b"x")
    image = tmp_path / "image"
    (image / "cryptroot").mkdir(parents=True)
    (image / "cryptroot/crypttab").write_text(f"root {volume} none luks\n")
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert boot_image.main([str(image)]) == 0
    lines = told.getvalue().splitlines()
    assert [line for line in lines if line.startswith("note ")] == [f"note eu of root is {enclave_where.LOUD}"]
    for name in ("appraisal.signed", "roots.pem", "store/snp-Milan.pem", "machine.json"):
        path = enclave.bench.path(name)
        assert f"file {path} {path}" in lines
    shared = [line.removeprefix("exec ") for line in lines if line.startswith("exec ") and "site-packages" in line]
    assert any(path.endswith("_rust.abi3.so") for path in shared)
    for path in shared:  # as the hook does; what lies in the image is then what is loaded
        target = Path(str(image) + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    launcher = (image / "usr/lib/keyquorum/keyquorum-unlock").read_text()
    outside = [path for path in sys.path if f"{path!r}" in launcher]
    assert outside
    enclave.custodian.reopen()
    agent = str(Path(boot_image.__file__).parents[2])
    dynamic = str(sysconfig.get_config_var("DESTSHARED"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _FROM_THE_IMAGE, str(image), dynamic, volume, agent, *outside],
        env={"KEYQUORUM_CONFIG": enclave.bench.path("keyquorum.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: (row["verdict"], row["reason"]) for row in json.loads(done.stdout)["holders"]}
    assert rows["eu"] == ("valid", enclave_where.LOUD)
