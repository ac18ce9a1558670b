# SPDX-License-Identifier: Apache-2.0
"""The bash completion, in a real bash: verbs, actions, options, kinds of holders, files and devices."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keyquorum.cli.main import VERBS
from keyquorum.holders import KINDS
from keyquorum.unlock.open_volume import CRYPTTAB_FLAGS

REPOSITORY = Path(__file__).resolve().parents[2]

# What readline does: split the line as bash does (COMP_WORDBREAKS has "="), call the function, look at COMPREPLY.
DRIVER = """
source "$1"; shift
complete -p keyquorum >/dev/null || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_keyquorum
((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion, made by a bare interpreter."""
    path = tmp_path_factory.mktemp("completion") / "keyquorum"
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "packaging/bash_completion.py")]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


def completed(script: Path, line: str, directory: str | Path = "/") -> set[str]:
    """What bash offers with the cursor at the end of a line."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    command = ["bash", "--norc", "-c", DRIVER, "bash", str(script), *words]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.splitlines())


def test_verbs(script: Path) -> None:
    assert completed(script, "keyquorum ") == {*VERBS, "--help", "--version"}
    assert completed(script, "keyquorum un") == {"unlock", "unenroll"}
    assert completed(script, "keyquorum nothing-starts-so") == set()


def test_actions(script: Path) -> None:
    assert completed(script, "keyquorum holder ") == {"init-disk", "list-disk", "--help"}
    assert completed(script, "keyquorum policy c") == {"check"}
    assert completed(script, "keyquorum attest policy ") == {"check", "sign", "--help"}


PARENTS = {"holder", "policy", "attest", "machine", "custodian", "log"}  # verbs with actions


@pytest.mark.parametrize(
    "verb",
    [
        *(verb for verb in VERBS if verb not in PARENTS),
        "holder init-disk",
        "attest verify",
        "machine enroll",
        "log verify",
    ],
)
def test_options_are_those_of_the_help(script: Path, verb: str) -> None:
    command = [sys.executable, "-m", "keyquorum.cli.main", *verb.split(), "--help"]
    environment = {"PYTHONPATH": str(REPOSITORY / "agent")}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    offered = completed(script, f"keyquorum {verb} --")
    assert "--json" in offered
    assert all(option in told or option == "--help" for option in offered)
    usage = told.partition("\n\n")[0]
    assert {*re.findall(r"--[a-z-]+", usage), *re.findall(r"(?m)^  (--[a-z-]+)", told)} <= offered | {"--help"}


def test_options_after_a_device_and_another_option(script: Path) -> None:
    assert completed(script, "keyquorum unlock /dev/vdb --name data --ti") == {"--timeout"}


def test_values(script: Path) -> None:
    assert completed(script, "keyquorum unlock --holder ") == set(KINDS)
    assert completed(script, "keyquorum check /dev/vdb --holder p") == {"pkcs11", "passphrase"}
    assert completed(script, "keyquorum unlock --options ") == set(CRYPTTAB_FLAGS) - {"readonly"}
    assert completed(script, "keyquorum unlock --timeout ") == set()


def test_files_and_directories(script: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").touch()
    (tmp_path / "sheets for people").mkdir()
    assert completed(script, "keyquorum enroll --policy p", tmp_path) == {"policy.toml"}
    assert completed(script, "keyquorum policy check pol", tmp_path) == {"policy.toml"}
    assert completed(script, "keyquorum enroll --sheet-dir ", tmp_path) == {"sheets for people"}
    assert completed(script, "keyquorum enroll ./pol", tmp_path) == {"./policy.toml"}


def test_devices(script: Path) -> None:
    listed = subprocess.run(["lsblk", "-nrpo", "NAME"], capture_output=True, text=True, check=True).stdout.split()
    assert listed, "no block device to complete"
    assert completed(script, "keyquorum enroll ") == set(listed)
    assert completed(script, f"keyquorum unlock {listed[0][:-1]}") >= {listed[0]}
    assert completed(script, "keyquorum holder init-disk /dev/nothing") == set()


def test_devices_by_uuid(script: Path) -> None:
    """On `UUID=x` readline hands over three words and wants the rest of the last."""
    directory = Path("/dev/disk/by-uuid")
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    assert completed(script, "keyquorum unlock UUID = ") == names
