# SPDX-License-Identifier: Apache-2.0
"""A fragment disk that does not hold what it should: said in words, never guessed (docs/holders-disk.md §3)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import RefusedError
from keyquorum.holders.contract import OpenTask, Subject, Tuning
from keyquorum.holders.disk import HOLDER
from keyquorum.linux import block
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model.fragment_disk import HEADER_SIZE, SLOT_SIZE, Entry, serialise_slot
from unit.model.objects import ENTRY

if TYPE_CHECKING:
    from pathlib import Path

DISK_ID = bytes(range(16))


def disk(tmp_path: Path, *entries: Entry) -> str:
    """A disk made by init-disk, to which an enrolment then wrote these entries."""
    path = tmp_path / "disk"
    path.write_bytes(serialise_slot(DISK_ID, 1, ()).ljust(SLOT_SIZE, b"\0") + serialise_slot(DISK_ID, 2, entries))
    return str(path)


def task(path: str) -> OpenTask:
    subject = Subject(volume=ENTRY.volume, set_id=ENTRY.set_id, epoch=ENTRY.epoch, index=ENTRY.index, name="disk-a")
    return OpenTask(
        subject=subject,
        where={"disk": DISK_ID.hex(), "identity": "AA" * 21 + "A=", "path": path},
        answers=LocalAnswers(),
        tuning=Tuning(),
        deadline=time.monotonic() + 10,
    )


def refusal(path: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        HOLDER.open(task(path))
    return caught.value


def test_the_fragment_is_found_by_volume_set_and_index(tmp_path: Path) -> None:
    with HOLDER.open(task(disk(tmp_path, ENTRY.with_(index=ENTRY.index + 1), ENTRY))).identity as identity:
        assert identity.size == 32


def attached(monkeypatch: pytest.MonkeyPatch, *paths: str) -> OpenTask:
    """A task for a disk that is looked for by its id, and found at these paths."""
    monkeypatch.setattr(block, "fragment_disks", lambda _id, _deadline: iter(paths))
    looked_for = task(paths[0])
    return looked_for.with_(where={name: value for name, value in looked_for.where.items() if name != "path"})


def test_a_copy_without_the_fragment_hides_no_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of an earlier time, attached beside the disk that it was taken of."""
    for name, entries in (("old", (ENTRY.with_(set_id=bytes(16)),)), ("new", (ENTRY,))):
        (tmp_path / name).mkdir()
        disk(tmp_path / name, *entries)
    broken = tmp_path / "broken"
    broken.write_bytes(bytes(SLOT_SIZE))
    paths = [str(broken), str(tmp_path / "old" / "disk"), str(tmp_path / "new" / "disk")]
    HOLDER.open(attached(monkeypatch, *paths)).identity.wipe()
    with pytest.raises(RefusedError, match="holds no intact slot"):
        HOLDER.open(attached(monkeypatch, *paths[:2]))


def test_fragments_of_another_set_are_tampering(tmp_path: Path) -> None:
    error = refusal(disk(tmp_path, ENTRY.with_(set_id=bytes(16))))
    assert error.tampered
    assert error.message.endswith("holds only fragments of another set of this volume")


def test_fragments_of_other_volumes_are_no_accusation(tmp_path: Path) -> None:
    error = refusal(disk(tmp_path, ENTRY.with_(volume="other")))
    assert not error.tampered
    assert error.message.endswith("holds 1 fragments, none of this volume")
    assert not error.hint


def test_a_fragment_lost_to_damage_is_called_that(tmp_path: Path) -> None:
    path = disk(tmp_path, ENTRY)
    with open(path, "r+b") as file:
        file.seek(SLOT_SIZE + HEADER_SIZE + 20)
        file.write(os.urandom(8))
    error = refusal(path)
    assert not error.tampered
    assert error.message.endswith("holds 0 fragments, none of this volume, and one of its two slots is damaged")
    assert "enrol again" in error.hint
