# SPDX-License-Identifier: Apache-2.0
"""`make lint` is part of what must pass: a change that only pleases the tests does not land."""

from __future__ import annotations

import subprocess

from house.sources import ROOT


def test_the_linters_have_nothing_to_complain_about() -> None:
    done = subprocess.run(["make", "--silent", "-C", ROOT, "lint"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
