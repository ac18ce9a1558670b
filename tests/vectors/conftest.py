# SPDX-License-Identifier: Apache-2.0
"""Published vectors are read where they are: in the folder `shared` beside the repository. They are not copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"


@pytest.fixture
def vectors() -> Callable[[str], Path]:
    """Give the path of a vector file; fail, naming what is missing, when it is not there."""

    def find(name: str) -> Path:
        if not VECTORS.is_dir():
            pytest.fail(f"the folder {VECTORS} with the published vectors is missing; this test cannot run without it")
        path = VECTORS / name
        if not path.exists():
            pytest.fail(f"the published vector {name} is missing in {VECTORS}")
        return path

    return find
