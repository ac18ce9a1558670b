# SPDX-License-Identifier: Apache-2.0
"""A volume with a fragment at a custodian, by the command line: enrolled, checked, opened without one of its disks."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from devices.custodian_core import Core
from devices.test_cli_outcomes import check
from devices.test_custodian_enrolment import policy as write_papers
from devices.test_custodian_enrolment import years_ago
from devices.tpm_emulator import Emulator
from devices.tpm_support import extend
from keyquorum.evidence import ek_certificate, tpm_public
from keyquorum.holders import machine_keys
from keyquorum.holders.contract import Tuning
from keyquorum.unlock import remote
from keyquorum.unlock.remote import Pacing
from unit.linux.tls_authority import CUSTODIAN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devices.bench import Bench


@pytest.fixture(autouse=True)
def pacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process of its own as far as custodians can tell."""
    monkeypatch.setattr(remote, "PACING", Pacing(lambda: 0.5))


@pytest.fixture
def core(tpm: Emulator, bench: Bench) -> Iterator[Core]:
    keys = machine_keys.read_attested(Tuning(tpm_device=tpm.device))
    with Core(bench.root, ek_certificate.key_hash(tpm_public.parse(keys.ek, "EK"))) as made:
        bench.write("invitation.json", made.invitation_file())
        yield made


def papers(bench: Bench, tmp_path: Path, tpm: Emulator, volume: str, **changes: str) -> str:
    """Write a policy of two disks and the custodian, any two; return its path."""
    write_papers(tmp_path, tpm, volumes=f'["{volume}"]', **changes)
    custodian = f"""
[holder.eu]
kind = "custodian"
id = "{CUSTODIAN}"
release = "{tmp_path / "release.toml"}"
reference = "{tmp_path / "reference.json"}"
"""
    path = bench.policy([bench.disk("disk-1"), bench.disk("disk-2")])
    with open(path, encoding="utf-8") as file:
        text = file.read().replace('of = ["disk-1", "disk-2"]', 'of = ["disk-1", "disk-2", "eu"]')
    return bench.write("policy.toml", text + custodian)


@pytest.fixture
def volume(core: Core, bench: Bench, tpm: Emulator, tmp_path: Path) -> str:
    """An enrolled volume."""
    check(
        bench.run(
            "machine",
            "enroll",
            "--invitation",
            bench.path("invitation.json"),
            "--address",
            core.server.address,
            "--json",
        ),
        "machine enroll",
        command="machine enroll",
    )
    check(bench.run("machine", "show", "--json"), "machine show", command="machine show")
    path = bench.volume("vol.img", "--luks2-metadata-size", "64k")
    said = bench.enroll(path, papers(bench, tmp_path, tpm, bench.volumes[-1]), "--json")
    check(said, "enroll")
    return path


def verdicts(bench: Bench, *words: str) -> dict[str, str]:
    said = bench.run(*words)
    return {row["name"]: row["verdict"] for row in said.json["holders"]} | {"code": str(said.code)}


def test_every_holder_is_proved_and_one_lost_disk_is_made_up_for(volume: str, bench: Bench, core: Core) -> None:
    assert core.paths.count("/v1/release") == 1, "the proof of the enrolment"
    assert verdicts(bench, "check", "--json", volume) == {
        "disk-1": "valid",
        "disk-2": "valid",
        "eu": "valid",
        "code": "0",
    }
    os.rename(bench.path("disk-1"), bench.path("away"))
    found = verdicts(bench, "check", "--json", volume)
    assert (found["code"], found["disk-1"], found["eu"]) == ("0", "unavailable", "valid")


def test_a_certificate_that_ends_is_told_and_renewed(
    volume: str, bench: Bench, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench.run("machine", "renew", "--json")
    check(said, "machine renew", command="machine renew")
    assert said.json["renewed"] == []
    years_ago(core, Tuning(machine=bench.path("machine.json")), 5)
    for words in (("check", volume), ("status",)):
        said = bench.run(*words)
        assert f"this machine's certificate for {CUSTODIAN} is over: keyquorum machine renew" in said.err, words
    assert bench.run("machine", "renew", "--json").json["renewed"] == [CUSTODIAN]
    monkeypatch.setattr(remote, "PACING", remote.Pacing(remote.dice))  # this process just asked in vain
    assert verdicts(bench, "check", "--json", volume)["eu"] == "valid"


def test_the_custodian_is_not_asked_while_the_disks_are_enough(volume: str, bench: Bench, core: Core) -> None:
    before = len(core.paths)
    said = bench.run("unlock", "--json", "--no-prompt", volume)
    rows = {row["name"]: row["verdict"] for row in said.json["holders"]}
    assert rows["eu"] == "not needed"
    assert len(core.paths) == before


def test_another_system_is_refused_and_named(volume: str, bench: Bench, tpm: Emulator) -> None:
    extend(tpm.device, 7)
    os.rename(bench.path("disk-1"), bench.path("away"))
    said = bench.run("check", "--json", volume)
    assert said.code == 3
    eu = next(row for row in said.json["holders"] if row["name"] == "eu")
    assert eu["verdict"] == "refused"
    assert eu["reason"].startswith(f"{CUSTODIAN} denies it: ")


def test_approvals_are_passed_over_by_the_proof_and_shown(
    core: Core, bench: Bench, tpm: Emulator, tmp_path: Path
) -> None:
    assert (
        bench.run(
            "machine", "enroll", "--invitation", bench.path("invitation.json"), "--address", core.server.address
        ).code
        == 0
    )
    path = bench.volume("vol.img", "--luks2-metadata-size", "64k")
    approvals = f'{{ needed = 1, of = {{ anna = "{"00" * 31}01" }}, within = "1h" }}'
    said = bench.enroll(path, papers(bench, tmp_path, tpm, bench.volumes[-1], approvals=approvals))
    assert said.code == 0, said.err
    assert "eu (custodian) is not proved: " in said.err
    os.rename(bench.path("disk-1"), bench.path("away"))
    remote.PACING = Pacing(lambda: 0.5)
    found = verdicts(bench, "check", "--json", path)
    assert (found["code"], found["eu"]) == ("3", "waiting")


def test_an_unreachable_custodian_stops_the_enrolment_and_leaves_the_volume(
    core: Core, bench: Bench, tpm: Emulator, tmp_path: Path
) -> None:
    path = bench.volume("vol.img", "--luks2-metadata-size", "64k")
    said = bench.enroll(path, papers(bench, tmp_path, tpm, bench.volumes[-1]))
    assert said.code != 0
    assert "this machine is enrolled at no custodian" in said.err
    assert bench.run("check", path).code == 2, "it is not enrolled"


def test_a_release_policy_for_another_volume_is_refused_before_anything_changes(
    core: Core, bench: Bench, tpm: Emulator, tmp_path: Path
) -> None:
    path = bench.volume()
    said = bench.enroll(path, papers(bench, tmp_path, tpm, "00000000-0000-0000-0000-000000000000"))
    assert (said.code, core.paths) == (2, [])
    assert f"is not for volume {bench.volumes[-1]}" in said.err


def test_nothing_is_created_with_a_custodian(core: Core, bench: Bench, tpm: Emulator, tmp_path: Path) -> None:
    new = bench.write("new.img", bytes(1))
    os.truncate(new, 64 << 20)
    said = bench.run("create", new, "--policy", papers(bench, tmp_path, tpm, "x"), "--no-passphrase", "--yes")
    assert said.code == 2
    assert "does not exist yet" in said.err


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"version": 2})])
def test_an_invitation_that_is_none(text: str, bench: Bench, tpm: Emulator) -> None:
    assert bench.run("machine", "enroll", "--invitation", bench.write("junk", text)).code == 2
    assert bench.run("machine", "enroll", "--invitation", bench.path("nothing")).code == 2
    said = bench.run("machine", "show", "--json")
    assert (said.code, said.json["custodians"]) == (0, [])
    said = bench.run("machine", "enroll", "--invitation", bench.write("junk", text), "--address", "nowhere")
    assert said.code == 2
