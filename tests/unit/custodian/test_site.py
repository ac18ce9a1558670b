# SPDX-License-Identifier: Apache-2.0
"""A custodian's directory, where several processes write the same file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from keyquorum.custodian import checkpoint
from keyquorum.custodian.checkpoint import Checkpoint
from keyquorum.custodian.site import Site
from keyquorum.linux import atomic_file
from unit.custodian.notes import KEYS, LOG, NOW, ORIGIN, WITNESSES


def note_of(size: int) -> bytes:
    return checkpoint.sign(Checkpoint(origin=ORIGIN, size=size, root=bytes([size]) * 32), LOG)


def test_the_newest_checkpoint_stays_whoever_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has looked and is slow to write; the other comes with a newer one in between."""
    site, has_looked, go_on = Site(str(tmp_path)), threading.Event(), threading.Event()
    site.keep_newest(note_of(1))
    write = atomic_file.write

    def slow(path: str, data: bytes, *, owner: tuple[int, int] | None) -> None:
        if data == note_of(2):
            has_looked.set()
            go_on.wait(10)
        write(path, data, owner=owner)

    monkeypatch.setattr(atomic_file, "write", slow)
    first = threading.Thread(target=site.keep_newest, args=(note_of(2),))
    first.start()
    assert has_looked.wait(10)
    second = threading.Thread(target=Site(str(tmp_path)).keep_newest, args=(note_of(3),))
    second.start()
    second.join(0.3)  # it may be held up, or be done: either way the newest must stand at the end
    go_on.set()
    first.join()
    second.join()
    assert (tmp_path / "newest.note").read_bytes() == note_of(3)


def test_an_older_checkpoint_replaces_no_newer_one(tmp_path: Path) -> None:
    site = Site(str(tmp_path))
    for size, kept in ((2, 2), (1, 2), (3, 3)):
        site.keep_newest(note_of(size))
        assert (tmp_path / "newest.note").read_bytes() == note_of(kept)


def test_a_checkpoint_with_fewer_cosignatures_replaces_none_with_more(tmp_path: Path) -> None:
    site = Site(str(tmp_path))
    one = checkpoint.cosign(checkpoint.verify(note_of(5), LOG.key), WITNESSES[0], NOW)
    both = checkpoint.cosign(checkpoint.verify(one, LOG.key, KEYS, 1), WITNESSES[1], NOW)
    twice = checkpoint.cosign(checkpoint.verify(one, LOG.key, KEYS, 1), WITNESSES[0], NOW + 1)
    for offered, kept in ((one, one), (note_of(5), one), (both, both), (one, both), (twice, both)):
        site.keep_newest(offered)
        assert (tmp_path / "newest.note").read_bytes() == kept
    site.keep_newest(note_of(6))
    assert (tmp_path / "newest.note").read_bytes() == note_of(6), "more entries count first"
