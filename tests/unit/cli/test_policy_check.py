# SPDX-License-Identifier: Apache-2.0
"""`keyquorum policy check`, by its real command line; and that docs/policy.md says what the program says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyquorum.cli import policy as verb
from keyquorum.errors import MalformedError, UsageError
from keyquorum.model import policy
from keyquorum.model.holder_options import (
    READERS,
    CustodianOptions,
    DiskOptions,
    EnclaveOptions,
    PassphraseOptions,
    Pkcs11Options,
    TpmOptions,
)
from keyquorum.model.policy import Rules
from unit.model.test_policy_refusals import CASES, changed
from unit.model.test_policy_warnings import CASES as WARNINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(f"packaging/examples/{path.name}" for path in (ROOT / "packaging/examples").glob("*.toml"))
DOC = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"```console\n\$ keyquorum policy check (\S+)\n(.*?)```", DOC, re.DOTALL))


def section(number: int) -> str:
    """Return a section of the page."""
    return DOC.partition(f"\n## §{number} ")[2].partition("\n## §")[0]


def first_column(number: int) -> list[str]:
    """Return what stands in backticks in the first column of a section's tables."""
    return re.findall(r"^\| `(.*?)` \|", section(number), re.MULTILINE)


def keyquorum(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "keyquorum.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"], "LC_ALL": "C"},
    )


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "policy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


GOOD = 'version = 1\nthreshold = 2\nof = ["a", "b"]\n[holder.a]\nkind = "sheet"\n[holder.b]\nkind = "sheet"\n'


# The page and the program


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_page_shows_what_the_checker_says(example: str) -> None:
    found = keyquorum("policy", "check", example)
    assert found.returncode == 0
    assert SHOWN[example] == found.stdout + found.stderr


def test_the_page_has_every_example_and_no_other() -> None:
    assert sorted(SHOWN) == EXAMPLES
    assert len(EXAMPLES) >= 6


def test_the_page_begins_with_a_policy_that_is_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", section(1), re.DOTALL)
    assert keyquorum("policy", "check", written(tmp_path, text)).returncode == 0


def test_the_page_names_every_key() -> None:
    assert {name for name in policy._PARTS if name not in {"holder", "group"}} <= set(
        re.findall(r"`\[?(\w+)\]?`", section(1))
    )
    options = (DiskOptions, TpmOptions, Pkcs11Options, PassphraseOptions, CustodianOptions, EnclaveOptions)
    keys = set(re.findall(r"^\| (?:`\w+`)? ?\| `(\w+)` \|", section(3), re.MULTILINE))
    assert keys == {name for record in options for name in record._fields}
    assert set(READERS) == set(first_column(3))
    assert first_column(4) == list(Rules._fields)
    assert first_column(5) == ["kem", "valid_days", "measure_pcr", "allow_single_holder"]


def test_the_page_names_every_warning() -> None:
    sizes = {"token-too-large", "set-too-large"}
    assert set(first_column(7)) == set(WARNINGS) | sizes


def test_the_page_names_every_field_of_the_json_object() -> None:
    found = json.loads(keyquorum("policy", "check", EXAMPLES[0], "--json").stdout)
    named = {
        word for row in re.findall(r"^\| (`.*?) \|", section(8), re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    assert named == set(found)


@pytest.mark.parametrize("error", first_column(9))
def test_the_page_shows_errors_as_they_are(error: str) -> None:
    def messages() -> Iterable[str]:
        for path, value, _ in CASES.values():
            try:
                policy.parse(changed(path, value), "F")
            except MalformedError as refused:
                yield refused.message.removeprefix("F: ")

    assert error in set(messages())


# The program


def test_results_and_warnings_are_apart() -> None:
    found = keyquorum("policy", "check", "packaging/examples/tpm-only.toml")
    assert found.stdout.startswith("opens with boot-tpm")
    assert "warning" not in found.stdout
    assert found.stderr == "keyquorum: warning: boot-tpm alone opens the volume\n"


def test_json_is_one_object_and_the_same_words() -> None:
    for example in EXAMPLES:
        found = keyquorum("policy", "check", example, "--json")
        assert (found.returncode, found.stderr, found.stdout.count("\n")) == (0, "", 1)
        outcome = json.loads(found.stdout)
        plain = keyquorum("policy", "check", example)
        assert outcome["sentences"] == plain.stdout.splitlines()
        assert [f"keyquorum: warning: {row['message']}" for row in outcome["warnings"]] == plain.stderr.splitlines()
        assert (outcome["version"], outcome["command"], outcome["exit_code"]) == (1, "policy check", 0)


def test_json_of_a_nested_policy() -> None:
    found = json.loads(keyquorum("policy", "check", "packaging/examples/people.toml", "--json").stdout)
    assert found["tree"]["children"][2] == {
        "threshold": 1,
        "children": [3, {"threshold": 2, "children": [4, 5, 6]}],
    }
    assert found["groups"] == {"people": [3], "admins": [3, 2]}
    assert (found["quorums"]["count"], found["quorums"]["fewest"], len(found["quorums"]["shown"])) == (9, 2, 9)
    assert ["boot-tpm", "alice", "carol"] in found["quorums"]["shown"]
    assert (found["losses"]["fewest"], found["survives"]) == (2, 1)
    assert found["unattended"] == {"count": 1, "shown": [["boot-tpm", "disk"]]}
    assert found["people"] == {"holders": ["sheet", "alice", "bob", "carol"], "needed": 0}


def test_a_broken_rule_ends_with_2(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + '[rules]\ndistinct = ["kind"]\nsurvives = 1\n')
    found = keyquorum("policy", "check", path)
    assert found.returncode == 2
    assert found.stdout.startswith("opens with both of: a (printed sheet) and b (printed sheet)\n")
    assert found.stderr.splitlines()[-1] == (
        f"keyquorum: {path}: rules: rule distinct kind: a and b both have sheet; "
        "rule survives 1: the quorum is lost without a"
    )
    found = keyquorum("policy", "check", path, "--json")
    assert found.returncode == 2
    outcome = json.loads(found.stdout)
    assert outcome["exit_code"] == 2
    assert outcome["violations"][0] == {
        "rule": "distinct",
        "label": "kind",
        "value": "sheet",
        "names": ["a", "b"],
        "message": "rule distinct kind: a and b both have sheet",
    }


def test_a_slip_ends_with_2_and_a_hint(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("threshold", "treshold"))
    found = keyquorum("policy", "check", path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.splitlines() == [
        f"keyquorum: {path}: treshold: is not known here",
        'keyquorum:   did you mean "threshold"?',
    ]


def test_help_teaches() -> None:
    found = keyquorum("policy", "--help")
    assert found.returncode == 0
    assert "keyquorum policy check policy.toml --json" in found.stdout
    assert keyquorum("policy").returncode == 2


# Reading the file

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "version: is missing"),
    "not_toml": (b"version = 1\nthreshold 2\n", "line 2: not TOML: "),
    "unclosed": (b'of = ["a",\n', "not TOML: "),
    "key_twice": (b"version = 1\nversion = 1\n", "line 2: not TOML: Cannot overwrite a value"),
    "table_twice": (b"[holder.a]\n[holder.a]\n", "line 2: not TOML: Cannot declare"),
    "not_utf8": (b'version = 1\nof = ["\xff"]\n', "byte 19: is not UTF-8 text"),
    "zero_byte": (b"version = 1\x00\n", "line 1: not TOML: "),
    "nested_too_deep": (b"a = " + b"[" * 30000, "is nested too deep"),
    "huge_number": (b"version = " + b"9" * 5000, "not TOML: a number is too large"),
    "too_large": (b"#" * (64 * 1024 + 1), "has more than 65536 bytes"),
    "control_characters": (b'"\x1b[2J" = 1\n', "not TOML: "),
    "escaped_control_characters": (rb'"\u001b[2J" = 1' + b"\n", r"'\x1b[2J': is not known here"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_broken_files(defect: str, tmp_path: Path) -> None:
    data, expected = BROKEN[defect]
    path = written(tmp_path, data)
    with pytest.raises(MalformedError) as caught:
        verb.load_policy(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert expected in caught.value.message
    assert caught.value.message.isprintable()


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    text = GOOD + "#" * (64 * 1024 - len(GOOD))
    assert len(verb.load_policy(written(tmp_path, text)).holders) == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, expected in (
        (str(tmp_path / "none.toml"), "cannot be read: No such file or directory"),
        (str(tmp_path), "cannot be read: Is a directory"),
        ("x\x00y", "holds a zero byte"),
        ("/dev/zero", "has more than 65536 bytes"),
    ):
        with pytest.raises(UsageError, match=expected):
            verb.load_policy(path)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, GOOD.encode())
    os.close(writing)
    try:
        assert len(verb.load_policy(f"/proc/self/fd/{reading}").holders) == 2
    finally:
        os.close(reading)
