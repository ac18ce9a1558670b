# SPDX-License-Identifier: Apache-2.0
"""What `--json` prints is what docs/cli.md says: every field of the tables, and no other, each of its type."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from devices.bench import Bench, Said

PAGE = Path(__file__).resolve().parents[2] / "docs/cli.md"
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int,),
    "flag": (bool,),
    "list": (list,),
    "tree": (dict,),
    "report": (dict,),
    "entry": (dict,),
    "null": (type(None),),
}
Table = dict[str, tuple[tuple[type, ...], bool]]


def table(verb: str) -> Table:
    """The fields that the page gives a verb: path, types, and whether the field may be missing."""
    section = re.search(
        rf"(?ms)^## \d+\. `keyquorum {verb.split(maxsplit=1)[0]}`$.*?(?=^## |\Z)", PAGE.read_text("utf-8")
    )
    assert section
    text = section[0]
    if " " in verb:
        text = text.partition(f"$ keyquorum {verb} --help")[2].partition("$ keyquorum")[0]
    rows = re.findall(r"(?m)^\| `([^`]+)` \| ([a-z ,]+) \|", text)
    assert rows
    found: Table = {}
    for path, kind in rows:
        optional = kind.endswith(", optional")
        names = kind.removesuffix(", optional").split(" or ")
        found[path] = (tuple(t for name in names for t in TYPES[name]), optional)
    return found


def paths(value: Any, opaque: tuple[str, ...], prefix: str = "") -> dict[str, set[type]]:
    """Every field of an object by its path, and the types it was seen with; what is opaque is not entered."""
    found: dict[str, set[type]] = {}
    for name, below in value.items():
        path = f"{prefix}{name}"
        found.setdefault(path, set()).add(type(below))
        for item in below if isinstance(below, list) else []:
            if isinstance(item, dict) and path not in opaque:
                for deeper, types in paths(item, opaque, f"{path}[].").items():
                    found.setdefault(deeper, set()).update(types)
    return found


def check(said: Said, verb: str, code: int = 0, opaque: tuple[str, ...] = (), command: str = "") -> None:
    """One outcome against the table of its verb."""
    assert said.code == code, said.err
    assert said.json["version"] == 1
    assert said.json["command"] == (command or verb.rpartition(" ")[2])
    assert said.json["exit_code"] == code
    seen, expected = paths(said.json, opaque), table(verb)
    for path, types in seen.items():
        assert path in expected, f"{verb}: {path} is not in docs/cli.md"
        assert types <= set(expected[path][0]), f"{verb}: {path} has another type"
    lists = {path for path, (types, _) in expected.items() if list in types}
    empty = {path for path in lists if not _anything_below(said.json, path)}
    for path, (_, optional) in expected.items():
        inside_empty = any(path.startswith(f"{other}[].") for other in empty)
        assert optional or inside_empty or path in seen, f"{verb}: {path} is missing"


def _anything_below(outcome: Any, path: str) -> bool:
    first, _, rest = path.partition("[].")
    items = outcome.get(first) or []
    return any(_anything_below(item, rest) for item in items) if rest else bool(items)


def test_the_life_of_a_volume_prints_what_the_page_says(bench: Bench) -> None:
    disks = [bench.disk(f"disk-{number}") for number in (1, 2, 3)]
    check(bench.run("holder", "init-disk", "--yes", "--force", "--json", disks[0]), "holder init-disk")
    volume = bench.volume()
    check(bench.enroll(volume, bench.policy(disks), "--json"), "enroll")
    check(bench.run("holder", "list-disk", "--json", disks[0]), "holder list-disk")
    check(bench.run("check", "--json", volume), "unlock", command="check")
    check(bench.run("status", "--json", volume), "status")
    key = bench.write("new", b"another passphrase")
    check(bench.run("recover", volume, "--add-passphrase", "--new-key-file", key, "--json"), "recover")
    for disk in disks[1:]:
        os.rename(disk, f"{disk}.away")
    check(bench.run("check", "--json", volume), "unlock", 3, command="check")
    check(bench.run("unlock", "--json", "--no-prompt", volume), "unlock", 3)
    check(bench.run("unenroll", "--yes", "--json", volume), "unenroll")


def test_a_short_wait_for_missing_holders_hurries_nobody_who_is_there(bench: Bench) -> None:
    volume = bench.volume()
    bench.enroll(volume, bench.policy([bench.disk("disk-1"), bench.disk("disk-2")]))
    said = bench.run("check", "--timeout", "0.001", "--json", volume)
    assert said.code == 0, said.err


def test_a_volume_that_status_cannot_find_has_an_error(bench: Bench) -> None:
    bench.enrolled()
    said = bench.run("status", "--json")
    check(said, "status")
    assert said.json["volumes"][0]["error"]


def test_create_prints_the_object_of_enroll(bench: Bench) -> None:
    policy = bench.policy([bench.disk("a"), bench.disk("b")])
    new = bench.write("new.img", bytes(1))
    os.truncate(new, 64 << 20)
    said = bench.run("create", new, "--policy", policy, "--key-file", bench.key_file, "--yes", "--json")
    check(said, "enroll", command="create")


def test_a_device_that_is_not_there_is_reported_all_the_same(bench: Bench) -> None:
    check(bench.run("unlock", "--json", bench.path("nothing")), "unlock", 2)


def test_a_command_that_fails_prints_no_object(bench: Bench) -> None:
    said = bench.run("enroll", bench.path("nothing"), "--policy", bench.path("none.toml"), "--json")
    assert said.code == 2
    assert said.out == ""


def test_every_example_fits_its_table() -> None:
    text = PAGE.read_text("utf-8")
    examples = [json.loads(found) for found in re.findall(r"(?ms)^```json\n(.*?)^```$", text)]
    verbs = {"init-disk": "holder init-disk", "list-disk": "holder list-disk"}
    assert len(examples) == 11
    for example in examples:
        verb = verbs.get(example["command"], example["command"])
        assert paths(example, ()).keys() <= table(verb).keys(), verb


def test_a_field_that_the_page_does_not_know_is_found() -> None:
    found = paths({"volumes": [{"new": 1}]}, ())
    assert "volumes[].new" in found
    assert "volumes[].new" not in table("status")


@pytest.mark.parametrize("verb", ["enroll", "unlock", "status", "recover", "unenroll", "holder init-disk"])
def test_tables_have_the_fields_that_every_object_has(verb: str) -> None:
    assert {"version", "command", "exit_code"} <= table(verb).keys()
