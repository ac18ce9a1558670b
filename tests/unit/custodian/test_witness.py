# SPDX-License-Identifier: Apache-2.0
"""A witness signs one history, and remembers which, also after a restart, a kill or an old backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from keyquorum.custodian import checkpoint, merkle, store
from keyquorum.custodian.checkpoint import ForkError
from keyquorum.custodian.note import COSIGNATURE, ED25519, NoteSigner
from keyquorum.custodian.store import Store
from keyquorum.custodian.witness import Witness, last_seen
from keyquorum.errors import TamperingError, UsageError
from unit.custodian.notes import LOG, NOW, an_entry, bodies, private, signed, tree
from unit.custodian.stores import OPERATOR

ROME_LOG = NoteSigner("custodian.example/rome", ED25519, private(40))
ROME = NoteSigner("custodian.example/rome", COSIGNATURE, private(41))
ENTRIES = bodies(12)
OTHER = [*ENTRIES[:3], an_entry(3, "another history").serialise(), *ENTRIES[4:]]


@pytest.fixture
def path(tmp_path: object) -> str:
    return os.path.join(str(tmp_path), "rome.db")


@pytest.fixture
def rome(path: str) -> Iterator[Store]:
    made = store.found_store(path, ROME_LOG.key.name, OPERATOR, NOW)
    yield made
    made.close()


def cosign(at: Store, size: int, old: int = 0, entries: list[bytes] = ENTRIES, when: int = NOW) -> bytes:
    proof = merkle.consistency_proof(old, size, tree(entries).read) if old else []
    return Witness(at, ROME).cosign(signed(entries, size), proof, LOG.key, when)


def seen(at: Store) -> int:
    with at.reading() as database:
        found = last_seen(database, LOG.key.name)
    return -1 if found is None else found.checkpoint.size


def test_a_log_that_goes_on_is_cosigned(rome: Store) -> None:
    for old, size in ((0, 5), (5, 5), (5, 9), (9, 12)):
        note = cosign(rome, size, old, when=NOW + size)
        found = checkpoint.verify(note, LOG.key, (ROME.key,), 1)
        assert (found.checkpoint.size, found.witnesses) == (size, {ROME.key.name: NOW + size})
        assert seen(rome) == size
    acts = [rome.log.entry(number).act for number in range(rome.log.size)]
    assert acts == ["founded", "cosigned", "cosigned", "cosigned"], "the same once more is no news"
    last = rome.log.entry(3)
    assert (last.who.name, last.facts["checkpoint-size"]) == (LOG.key.name, "12")


def test_what_does_not_go_on_is_not(rome: Store) -> None:
    cosign(rome, 9)
    with pytest.raises(TamperingError, match="went back"):
        cosign(rome, 5)
    with pytest.raises(TamperingError):
        cosign(rome, 12, entries=OTHER, old=9)
    with pytest.raises(TamperingError):
        cosign(rome, 12)
    stranger = signed(ENTRIES, 12, NoteSigner(LOG.key.name, ED25519, private(42)))
    with pytest.raises(TamperingError, match="not by"):
        Witness(rome, ROME).cosign(stranger, [], LOG.key, NOW)
    assert (seen(rome), rome.log.size) == (9, 2)


def test_a_fork_is_kept(rome: Store) -> None:
    cosign(rome, 9)
    with pytest.raises(ForkError):
        cosign(rome, 9, entries=OTHER)
    found = rome.log.entry(rome.log.size - 1)
    assert (found.act, found.who.name) == ("fork-seen", LOG.key.name)
    (kept,) = rome._database.execute("SELECT result FROM evidence WHERE number = ?", (found.number,)).fetchone()
    assert kept == signed(ENTRIES, 9) + b"\n" + signed(OTHER, 9)
    assert seen(rome) == 9
    cosign(rome, 12, 9)


def test_nobody_is_a_witness_of_his_own_log(rome: Store) -> None:
    own = rome.sign_checkpoint(ROME_LOG)
    with pytest.raises(UsageError):
        Witness(rome, ROME).cosign(own, [], ROME_LOG.key, NOW)


def test_a_witness_from_an_old_backup_remembers_after_its_missing_entries(rome: Store, path: str) -> None:
    cosign(rome, 5)
    rome.backup(path + ".backup")
    cosign(rome, 9, 5)
    latest = checkpoint.verify(rome.sign_checkpoint(ROME_LOG), ROME_LOG.key)
    missing = list(rome.log.bodies(2))
    shutil.copy(path + ".backup", path + ".copy")
    old = store.open_store(path + ".backup")
    assert seen(old) == 5
    old.catch_up(latest, missing)
    assert seen(old) == 9
    with pytest.raises(ForkError):
        cosign(old, 9, entries=OTHER)
    cosign(old, 12, 9)
    old.close()
    wrong = store.open_store(path + ".copy")
    with pytest.raises(TamperingError, match="which checkpoint"):
        wrong.catch_up(latest, [missing[0].replace(b'checkpoint-size":"9"', b'checkpoint-size":"x"')])
    assert seen(wrong) == 5
    wrong.close()
