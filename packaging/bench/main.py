# SPDX-License-Identifier: Apache-2.0
"""`make bench`: runs the package beside this file, with the test machines of tests/ within reach."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path[0:1] = [str(REPOSITORY / "packaging"), str(REPOSITORY / "tests"), str(REPOSITORY / "agent")]
runpy.run_module("bench", run_name="__main__", alter_sys=True)
