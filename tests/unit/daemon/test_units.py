# SPDX-License-Identifier: Apache-2.0
"""What `systemctl show` says, read as systemd 252 and 257 print it."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.daemon import units
from keyquorum.daemon.waiting import Unit

SHOWN = """\
Id=systemd-cryptsetup@data.service
ActiveState=activating
SubState=start
MainPID=465
ExecMainStartTimestampMonotonic=132466892
ExecMainExitTimestampMonotonic=0
ExecMainStatus=0

Id=keyquorum-unlock@we\\x2dird.service
ActiveState=inactive
SubState=dead
MainPID=0
ExecMainStartTimestampMonotonic=0
ExecMainExitTimestampMonotonic=0
ExecMainStatus=0

Id=keyquorum-unlock@data.service
ActiveState=failed
SubState=failed
MainPID=0
ExecMainStartTimestampMonotonic=107068499
ExecMainExitTimestampMonotonic=132198269
ExecMainStatus=3
"""


def test_units_are_paired_by_instance() -> None:
    data, weird = units.parse(SHOWN)
    assert (data.instance, weird.instance) == ("data", "we\\x2dird")
    assert data.unlock == Unit(active="failed", sub="failed", started=107.068499, ended=132.198269, status=3)
    assert data.prompt == Unit(active="activating", sub="start", started=132.466892, pid=465)
    assert weird.prompt == Unit()


@pytest.mark.parametrize(
    "shown", ["", "\n", "Id=systemd-cryptsetup@other.service\nActiveState=active\n", "Id=\n", "rubbish"]
)
def test_no_unit_of_ours_no_volume(shown: str) -> None:
    assert units.parse(shown) == ()


def test_a_value_that_is_no_number_counts_as_none() -> None:
    (volume,) = units.parse("Id=keyquorum-unlock@a.service\nActiveState=failed\nExecMainStatus=-\nMainPID=²\n")
    assert volume.unlock == Unit(active="failed")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1), min_size=1, max_size=8))
def test_names_come_back_as_systemd_escapes_them(names: list[str]) -> None:
    escaped = subprocess.run(["systemd-escape", "--", *names], stdout=subprocess.PIPE, check=True).stdout.decode()
    assert [units.unescape(instance) for instance in escaped.rstrip("\n").split(" ")] == names


@pytest.mark.parametrize(
    ("instance", "name"), [("a\\x2", "a\\x2"), ("\\xzz", "\\xzz"), ("\\x", "\\x"), ("a-b", "a/b"), ("\\xff", "\ufffd")]
)
def test_what_is_no_escape_stays(instance: str, name: str) -> None:
    assert units.unescape(instance) == name
