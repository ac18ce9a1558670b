# SPDX-License-Identifier: Apache-2.0
"""Asking one's own witnesses, and when there is nothing to ask them (docs/custodian.md §12.2)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from keyquorum.custodian import checkpoint, witnessing
from keyquorum.custodian.entry import Actor, Entry, administration
from keyquorum.custodian.note import NoteSigner
from keyquorum.custodian.peer import AnsweredError
from keyquorum.custodian.site import Site
from keyquorum.custodian.store import MOST_ENTRIES, Store
from keyquorum.custodian.witnessing import Round
from unit.custodian.notes import KEYS, LOG, NOW, ORIGIN, WITNESSES, an_entry
from unit.custodian.stores import a_store


class Place(Site):
    """A directory whose log has the tests' key."""

    def log_signer(self, _settings: object) -> NoteSigner:
        return LOG


class Asked:
    """A witness that cosigns whatever it is asked, and remembers it."""

    def __init__(self, witness: NoteSigner) -> None:
        self._witness, self._last, self.sizes = witness, b"", list[int]()

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        if body is None:
            if not self._last:
                raise AnsweredError(path, 404)
            return self._last
        offered = checkpoint.verify(base64.b64decode(json.loads(body)["checkpoint"]), LOG.key, KEYS)
        self._last = checkpoint.cosign(offered, self._witness, NOW)
        self.sizes.append(offered.checkpoint.size)
        return self._last


class Watched:
    """A log and its witnesses."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: Store = a_store(directory)
        self.site = Place(str(directory))
        self.peers = {witness.key.name: Asked(witness) for witness in WITNESSES}
        around = Round(log=LOG.key, witnesses=KEYS, peers=self.peers)  # type: ignore[arg-type]
        monkeypatch.setattr(Round, "of", lambda *_: around)

    def ask(self) -> tuple[str, ...]:
        return witnessing.ask(self.site, None, self.store)  # type: ignore[arg-type]

    def cosign_others(self, count: int) -> None:
        who = Actor(role="custodian", name="other.example", key="ab" * 32)
        with self.store.writing():
            for size in range(1, count + 1):
                facts = {"checkpoint-size": str(size), "checkpoint-root": "cd" * 32}
                self.store.note(cosigning(who, facts))


def cosigning(who: Actor, facts: dict[str, str]) -> Entry:
    return administration("cosigned", who, NOW, "", facts=facts)


BOTH = tuple(key.name for key in KEYS)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_news_go_to_every_witness_once(watched: Watched) -> None:
    assert watched.ask() == BOTH
    assert watched.ask() == ()
    watched.store.record(an_entry(0))
    assert watched.ask() == BOTH
    assert [peer.sizes for peer in watched.peers.values()] == [[watched.store.size - 1, watched.store.size]] * 2
    kept = checkpoint.verify((Path(watched.site.directory) / "newest.note").read_bytes(), LOG.key, KEYS, 2)
    assert (kept.checkpoint.origin, kept.checkpoint.size) == (ORIGIN, watched.store.size)


def test_what_was_cosigned_for_others_is_no_news(watched: Watched) -> None:
    watched.ask()
    watched.cosign_others(5)
    assert watched.ask() == ()
    watched.store.record(an_entry(0))
    assert watched.ask() == BOTH


@pytest.mark.parametrize("count", [MOST_ENTRIES - 1, MOST_ENTRIES, MOST_ENTRIES + 1])
def test_news_behind_many_cosignatures_for_others_are_seen(watched: Watched, count: int) -> None:
    watched.ask()
    watched.cosign_others(count)
    watched.store.record(an_entry(0))
    assert watched.ask() == BOTH
    assert watched.ask() == ()
