# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a receipt is against, and how much is looked at for that (docs/custodian.md §9.3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyquorum.custodian import checkpoint, receipt, witnessed_receipt
from keyquorum.custodian.checkpoint import Verified
from keyquorum.custodian.note import NoteSigner, VerifierKey
from keyquorum.custodian.store import Store
from unit.custodian.notes import KEYS, LOG, NOW, WITNESSES, an_entry
from unit.custodian.stores import a_store, newest


class Verifying:
    """Counts how many checkpoints are verified."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        verify = checkpoint.verify

        def counted(signed: bytes, log: VerifierKey, witnesses: tuple[VerifierKey, ...] = ()) -> Verified:
            self.count += 1
            return verify(signed, log, witnesses)

        monkeypatch.setattr(checkpoint, "verify", counted)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = a_store(tmp_path)
    yield made
    made.close()


def step(store: Store, *witnesses: NoteSigner) -> int:
    """Write an entry and keep a checkpoint that has it, with some cosignatures; return its size."""
    store.record(an_entry(0))
    found = newest(store)
    for witness in witnesses:
        signed = checkpoint.cosign(found, witness, NOW)
        found = checkpoint.verify(signed, LOG.key)
    if witnesses:
        store.take_cosigned(found)
    return found.checkpoint.size


def proved(store: Store, number: int, witnesses: tuple[VerifierKey, ...]) -> Verified:
    return witnessed_receipt.prove(store, number, LOG, witnesses)[1]


def test_the_newest_with_a_cosignature_counts(store: Store) -> None:
    first, second = step(store, WITNESSES[0]), step(store, *WITNESSES)
    newest_size = step(store)
    assert proved(store, 0, KEYS).checkpoint.size == second
    assert proved(store, second - 1, KEYS).witnesses.keys() == {key.name for key in KEYS}
    assert proved(store, second, KEYS).checkpoint.size == newest_size, "no witness has this entry"
    made, _ = witnessed_receipt.prove(store, first, LOG, KEYS)
    assert receipt.verify(made, LOG.key, KEYS, 2).entry.number == first


def test_the_cosignature_of_a_stranger_is_none(store: Store) -> None:
    first = step(store, WITNESSES[0])
    step(store, WITNESSES[1])
    assert proved(store, 0, KEYS[:1]).checkpoint.size == first


def test_what_no_witness_signed_is_not_verified(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = step(store, WITNESSES[0])
    for _ in range(50):
        step(store)
    verifying = Verifying(monkeypatch)
    assert proved(store, 0, KEYS).checkpoint.size == first
    assert verifying.count == 1


def test_without_witnesses_nothing_is_looked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(50):
        step(store, WITNESSES[0])
    verifying = Verifying(monkeypatch)
    assert proved(store, 0, ()).checkpoint.size == store.size
    assert verifying.count == 1, "the one in the receipt"


def test_after_many_of_strangers_it_is_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of witnesses that were exchanged, say: then the receipt is against a checkpoint of now."""
    monkeypatch.setattr(witnessed_receipt, "_MOST", 10)
    step(store, WITNESSES[0])
    for _ in range(20):
        step(store, WITNESSES[1])
    verifying = Verifying(monkeypatch)
    found = proved(store, 0, KEYS[:1])
    assert (found.checkpoint.size, dict(found.witnesses)) == (store.size, {})
    assert verifying.count == 11
