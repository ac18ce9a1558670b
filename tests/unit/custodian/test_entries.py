# SPDX-License-Identifier: Apache-2.0
"""Entries, receipts, and the check of a whole log: removed, moved, changed, forked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.custodian import checkpoint, entry, log_check, merkle, receipt
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from unit.custodian.notes import KEYS, LOG, NOW, WITNESSES, an_entry, bodies, signed, tree, verified

ENTRIES = bodies(12)
TABLE = strict_json.parse(ENTRIES[0], "", 1 << 20, TamperingError)


def test_an_entry_is_read_as_it_was_written() -> None:
    assert entry.parse(ENTRIES[3]) == an_entry(3)
    small = Entry(number=0, at=0, kind="administration", act="founded", who=Actor(role="custodian", name="paris"))
    assert entry.parse(small.serialise()) == small


REFUSED: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "kind": {"kind": "gift"},
    "act of another kind": {"act": "released"},
    "number": {"number": -1},
    "time": {"at": 1 << 41},
    "role": {"who": {"role": "king", "name": "x", "key": ""}},
    "key": {"who": {"role": "machine", "name": "x", "key": "AB" * 32}},
    "no name": {"who": {"role": "machine", "name": "", "key": ""}},
    "volume": {"fragment": {"volume": "x" * 36, "set": "00" * 16, "epoch": 1, "index": 1}},
    "epoch 0": {"fragment": TABLE["fragment"] | {"epoch": 0}},
    "more of a fragment": {"fragment": TABLE["fragment"] | {"share": "00"}},
    "an escape": {"reason": "\x1b[2J"},
    "a long reason": {"reason": "x" * 257},
    "an unknown fact": {"facts": {"share": "00" * 32}},
    "an empty fact": {"facts": {"attestation": ""}},
    "a check": {"checks": [{"name": "x"}]},
    "many checks": {"checks": TABLE["checks"] * 65},
    "an unknown field": {"identity": "00"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_entry(case: str) -> None:
    with pytest.raises(TamperingError):
        entry.parse(strict_json.serialise(TABLE | REFUSED[case]))


def test_every_field_must_be_there_in_the_one_form() -> None:
    for name in TABLE:
        with pytest.raises(TamperingError):
            entry.parse(strict_json.serialise({key: TABLE[key] for key in TABLE if key != name}))
    for loose in (ENTRIES[0] + b" ", ENTRIES[0].replace(b',"', b', "', 1), b"x" * (entry.MAX_ENTRY + 1)):
        with pytest.raises(TamperingError):
            entry.parse(loose)


def test_what_strangers_say_is_made_harmless_and_a_wrong_entry_is_not_written() -> None:
    rude = Entry(
        number=0, at=NOW, kind="challenge", act="refused", who=Actor(role="unknown", name="\x1b]0;" + "x" * 999)
    )
    assert len(entry.parse(rude.serialise()).who.name) == 256
    with pytest.raises(ValueError, match="share"):
        Entry(number=0, at=NOW, kind="challenge", act="issued", who=rude.who, facts={"share": "00"}).serialise()


def a_receipt(index: int = 3, size: int = 10, entries: list[bytes] = ENTRIES) -> bytes:
    proof = merkle.inclusion_proof(index, size, tree(entries).read)
    note = checkpoint.verify(signed(entries, size), LOG.key)
    for witness in WITNESSES:
        note = checkpoint.verify(checkpoint.cosign(note, witness, NOW), LOG.key)
    return receipt.serialise(entries[index], index, proof, note.signed)


def test_a_receipt() -> None:
    for index, size in ((0, 1), (3, 10), (9, 10), (11, 12)):
        found = receipt.verify(a_receipt(index, size), LOG.key, KEYS, 2)
        assert found.entry == an_entry(index)
        assert found.verified.checkpoint.size == size
        assert set(found.verified.witnesses) == {key.name for key in KEYS}


@settings(deadline=None, max_examples=400)
@given(at=st.integers(0, 8000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_receipt_is_believed(at: int, bit: int) -> None:
    data = bytearray(a_receipt())
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(TamperingError):
        receipt.verify(bytes(data), LOG.key, KEYS, 2)


def test_receipts_that_do_not_hold() -> None:
    good = a_receipt()
    head, _, note = good.partition(b"\n\n")
    lines = head.split(b"\n")
    moved = [an_entry(4).serialise() if number == 3 else body for number, body in enumerate(ENTRIES)]
    cases = [
        b"",
        head,
        good[:-1],
        b"x" * (receipt.MAX_RECEIPT + 1),
        b"\n".join([*lines[:-1], b"", b""]) + note,
        b"\n".join([lines[0], lines[2], *lines[3:], b"", b""]) + note,
        b"\n".join([*lines, lines[-1], b"", b""]) + note,
        good.replace(b"index 3", b"index 4"),
        good.replace(b"index 3", b"index 03"),
        good.replace(b"index 3", b"index -3"),
        good.replace(b"proof@v1", b"proof@v2"),
        head + b"\n\n" + signed(ENTRIES, 9),
        a_receipt(entries=moved),
    ]
    for data in cases:
        with pytest.raises(TamperingError):
            receipt.verify(data, LOG.key)


def check(entries: list[bytes], *sizes: int, leaves: bool = True) -> list[str]:
    kept = [merkle.leaf_hash(body) for body in ENTRIES] if leaves else None
    notes = [verified(ENTRIES, size) for size in sizes]
    return [f"{found.number}: {found.problem}" for found in log_check.examine(entries, notes, kept).findings]


def test_a_whole_log() -> None:
    notes = [verified(ENTRIES, size) for size in (12, 0, 5, 5)]
    report = log_check.examine(ENTRIES, notes, [merkle.leaf_hash(body) for body in ENTRIES])
    assert (report.size, report.confirmed, report.findings) == (12, 12, ())
    assert report.root == merkle.root(12, tree(ENTRIES).read)
    report.demand()
    assert log_check.examine([]).size == 0


def test_a_removed_entry_is_named() -> None:
    short = [*ENTRIES[:6], *ENTRIES[7:]]
    assert check(short, leaves=False)[0] == "6: entry 7 stands where entry 6 was: one was removed or moved"
    assert "entry 6" in check(short, 12)[0]
    assert check(ENTRIES[:9])[-1].startswith("9: 3 entries at the end were removed")
    assert check(ENTRIES[:9], 5, 12, leaves=False) == ["9: entries 9 to 11 were removed: a checkpoint has 12 entries"]


def test_a_moved_entry_is_named() -> None:
    moved = [*ENTRIES[:3], ENTRIES[4], ENTRIES[3], *ENTRIES[5:]]
    assert [line[:2] for line in check(moved, leaves=False)] == ["3:", "4:"]


def test_a_changed_entry_is_named() -> None:
    changed = [*ENTRIES[:7], an_entry(7, "another reason").serialise(), *ENTRIES[8:]]
    assert check(changed) == ["7: entry 7 was changed: its hash is not the one that was kept"]
    assert check([*ENTRIES[:7], b"{}", *ENTRIES[8:]], leaves=False)[0].startswith("7: entry 7 was changed: ")


def test_a_log_written_anew_is_caught_by_what_was_signed() -> None:
    """Numbers and kept hashes all fit; only the checkpoints do not."""
    anew = [*ENTRIES[:7], an_entry(7, "another reason").serialise(), *ENTRIES[8:]]
    leaves = [merkle.leaf_hash(body) for body in anew]
    notes = [verified(ENTRIES, size) for size in (5, 10, 12)]
    report = log_check.examine(anew, notes, leaves)
    assert report.confirmed == 5
    assert [found.number for found in report.findings] == [5, 5]
    assert report.findings[0].problem == "entries 5 to 9 are not what the checkpoint for 10 was signed for"
    with pytest.raises(TamperingError, match="entry 5"):
        report.demand()
    assert log_check.examine(anew, [], leaves).findings == ()


def test_a_forked_log_is_caught() -> None:
    anew = [*ENTRIES[:7], an_entry(7, "another reason").serialise(), *ENTRIES[8:]]
    report = log_check.examine(ENTRIES, [verified(ENTRIES, 10), verified(anew, 10)])
    assert any("forked" in found.problem for found in report.findings)


def test_findings_have_an_end() -> None:
    assert len(log_check.examine([b"x"] * 300).findings) == log_check.MAX_FINDINGS


def test_what_is_remembered_of_checks_changes_no_byte_of_an_entry() -> None:
    """Also for checks that are equal but for one word, and the second time."""
    found = an_entry(3)
    made = [
        found,
        replace(found, checks=(*found.checks, *(check._replace(actual='ä \\ " other') for check in found.checks))),
    ]
    for one in (*made, *made):
        table = strict_json.parse(one.serialise(), "", 1 << 20, TamperingError)
        assert one.serialise() == strict_json.serialise(table)
        assert table["checks"] == [check._asdict() for check in one.checks]
        assert entry.parse(one.serialise()) == one


@pytest.mark.parametrize("wrong", [{"actual": ""}, {"expected": "\x1b"}, {"name": "No Name"}, {"spec": "x" * 257}])
def test_an_entry_with_a_check_that_nobody_reads_is_not_written(wrong: dict[str, Any]) -> None:
    found = an_entry(3)
    for _ in range(2):
        with pytest.raises(ValueError, match="checks"):
            replace(found, checks=(*found.checks, found.checks[0]._replace(**wrong))).serialise()
    with pytest.raises(ValueError, match="64"):
        replace(found, checks=found.checks[:1] * 65).serialise()
