# SPDX-License-Identifier: Apache-2.0
"""Recovery sheets as files: each may be the only copy of something (docs/enrolment.md §5)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from devices.bench import snapshot

if TYPE_CHECKING:
    from devices.bench import Bench


@pytest.fixture
def policy(bench: Bench) -> str:
    return bench.write(
        "people.toml",
        f'version = 1\nthreshold = 2\nof = ["d", "paper"]\n[holder.d]\nkind = "disk"\ndevice = "{bench.disk("d")}"\n'
        '[holder.paper]\nkind = "sheet"\n',
    )


def test_a_sheet_of_another_volume_is_never_replaced(bench: Bench, policy: str) -> None:
    os.mkdir(bench.path("sheets"))
    first, second = bench.volume("a.img"), bench.volume("b.img")
    said = bench.enroll(first, policy, "--sheet-dir", bench.path("sheets"))
    assert said.code == 0, said.err
    sheet = bench.path("sheets/sheet-1.txt")
    assert stat.S_IMODE(os.stat(sheet).st_mode) == 0o600
    before = snapshot(sheet, second)
    said = bench.enroll(second, policy, "--sheet-dir", bench.path("sheets"))
    assert said.code == 2
    assert "sheet-1.txt is there already: it may be the only copy of another volume's sheet" in said.err
    assert snapshot(*before) == before
    os.rename(sheet, bench.path("sheets/first.txt"))
    assert bench.enroll(second, policy, "--sheet-dir", bench.path("sheets")).code == 0


def test_a_link_in_the_directory_is_not_followed(bench: Bench, policy: str) -> None:
    os.mkdir(bench.path("sheets"))
    os.symlink(bench.path("elsewhere"), bench.path("sheets/sheet-1.txt"))
    assert bench.enroll(bench.volume(), policy, "--sheet-dir", bench.path("sheets")).code == 2
    assert not os.path.lexists(bench.path("elsewhere"))
