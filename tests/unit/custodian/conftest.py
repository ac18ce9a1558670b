# SPDX-License-Identifier: Apache-2.0
"""A custodian and the machine that asks it, for the tests of what it decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.custodian.offices import Custodian, WebServer


@pytest.fixture
def machine() -> WebServer:
    return WebServer()


@pytest.fixture
def custodian(tmp_path: Path, machine: WebServer) -> Custodian:
    return Custodian(tmp_path, machine)
