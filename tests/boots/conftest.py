# SPDX-License-Identifier: Apache-2.0
"""What boot tests start from."""

from pathlib import Path

import pytest

from boots.enrolled import Scene, enrolled_root


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Throw-away copies of the machine whose root opens from 2 of 3: disk, TPM, disk."""
    return Scene(enrolled_root(), str(tmp_path))
