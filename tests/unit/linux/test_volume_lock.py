# SPDX-License-Identifier: Apache-2.0
"""One administrator's act on a volume at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import KeyquorumError, TryAgainError
from keyquorum.linux.volume_lock import exclusive

if TYPE_CHECKING:
    from pathlib import Path


def test_the_second_comes_later(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    with exclusive("aaaa", directory):
        with (
            pytest.raises(TryAgainError, match="another keyquorum is working on volume aaaa") as caught,
            exclusive("aaaa", directory),
        ):
            pass
        assert caught.value.exit_code == 5
        with exclusive("bbbb", directory):
            pass
    with exclusive("aaaa", directory):
        pass


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive("aaaa", str(tmp_path)):
        raise ZeroDivisionError
    with exclusive("aaaa", str(tmp_path)):
        pass


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyquorumError, match="cannot be opened"), exclusive("aaaa", str(tmp_path / "file")):
        pass
