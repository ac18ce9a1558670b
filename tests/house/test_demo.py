# SPDX-License-Identifier: Apache-2.0
"""What `make demo` writes is what docs/development.md §8 says. (The boots themselves: tests/boots.)"""

import re
from types import ModuleType
from typing import Any

import pytest

from house.sources import program, read


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The program, loaded and not run."""
    return program("packaging/demo.py")


def ended(demo: ModuleType, number: int, prompted: bool, outcome: str) -> dict[str, Any]:
    """How a boot of the demonstration ended."""
    boot: dict[str, Any] = demo.boot_result(
        demo.BOOTS[number], ["  tpm (tpm): valid"], prompted, 9.87, {"outcome": outcome}
    )
    return boot


def test_the_result_has_the_documented_fields(demo: ModuleType) -> None:
    section = read("docs/development.md").partition("\n## 8. ")[2].partition("\n## ")[0]
    kinds = {"number": (int, float), "text": (str,), "list": (list,), "true or false": (bool,), "report": (dict,)}
    documented = dict(re.findall(r"(?m)^\| `([a-z_.\[\]]+)` \| ([a-z ]+) \|", section))
    result = demo.result("keyquorum_0_amd64.deb", [ended(demo, 0, False, "opened")])
    found = {**result, **{f"boots[].{name}": value for name, value in result["boots"][0].items()}}
    assert found.keys() == documented.keys()
    for name, kind in documented.items():
        assert type(found[name]) in kinds[kind], name


def test_it_passes_only_when_every_boot_ended_as_it_must(demo: ModuleType) -> None:
    good = [ended(demo, 0, False, "opened"), ended(demo, 3, True, "failed")]
    assert demo.result("", good)["passed"]
    for wrong in (ended(demo, 0, True, "failed"), ended(demo, 3, False, "opened"), ended(demo, 3, True, "opened")):
        assert not demo.result("", [*good, wrong])["passed"]


def test_it_shows_a_quorum_each_kind_of_loss_and_a_refusal(demo: ModuleType) -> None:
    assert {(boot.missing, boot.opens) for boot in demo.BOOTS} >= {((), True), (("tpm",), True), (("disk-a",), True)}
    assert [len(boot.missing) for boot in demo.BOOTS if not boot.opens] == [2]
