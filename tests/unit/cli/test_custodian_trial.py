# SPDX-License-Identifier: Apache-2.0
"""A trial whose invitation cannot be written: nothing is made, or it is said how to go on (docs/custodian.md §11.2)."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyquorum.cli import custodian_operate, custodian_trial
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import atomic_file


def arguments(path: Path) -> Namespace:
    return Namespace(trial=str(path), origin="", witness=[], listen=[], unsafe_without_witnesses=False)


def test_a_trial_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "invitation.json", Path("invitation.json")):
        given = arguments(path)
        custodian_trial.settle(given)
        assert (given.listen, given.unsafe_without_witnesses) == (["127.0.0.1:8443"], True)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"somebody's")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, words in (
        (there, "is there already"),
        (tmp_path / "dangling", "is there already"),
        (tmp_path / "missing" / "one.json", "is no directory"),
        (there / "one.json", "is no directory"),
    ):
        with pytest.raises(UsageError, match=words):
            custodian_trial.settle(arguments(path))
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == str(tmp_path) and mode & os.W_OK))
    with pytest.raises(UsageError, match="cannot be written in"):
        custodian_trial.settle(arguments(tmp_path / "one.json"))
    assert there.read_bytes() == b"somebody's"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "there"]


def full(_path: str, _data: bytes) -> bool:
    raise KeyquorumError("cannot be written: No space left on device")


@pytest.mark.parametrize("create", [full, lambda _path, _data: False])
def test_who_has_a_custodian_and_no_invitation_is_told_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: Any
) -> None:
    monkeypatch.setattr(custodian_operate, "offer", lambda *_words, **_more: {})
    monkeypatch.setattr(atomic_file, "create", create)
    site: Any = SimpleNamespace(directory="/there", open_store=lambda _settings: Shut())
    settings: Any = SimpleNamespace(listen=("127.0.0.1:8443",))
    with pytest.raises(KeyquorumError) as caught:
        custodian_trial.invite(arguments(tmp_path / "one.json"), site, settings, b"\x01" * 32)
    for words in ("enroll-machine", f"--ek {'01' * 32}", "--address 127.0.0.1:8443", "--directory /there", "--json"):
        assert words in caught.value.hint


class Shut:
    def close(self) -> None:
        """Nothing to close."""
