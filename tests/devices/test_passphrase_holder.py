# SPDX-License-Identifier: Apache-2.0
"""The passphrase holder: opening, refusing, and what is said about weak passphrases."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from devices.holder_tasks import SUBJECT, Given, identity, open_task, seal_task
from devices.second_reader import unwrap
from keyquorum.errors import RefusedError, TamperingError, UnavailableError, UsageError
from keyquorum.holders import load, passphrase
from keyquorum.model.holder_options import PassphraseOptions
from keyquorum.secret import Identity

HOLDER = load("passphrase")
QUICK = PassphraseOptions(memory=8, passes=1)
WORDS = b"correct horse battery staple"


def seal(
    kept: Identity, words: bytes = WORDS, options: PassphraseOptions = QUICK, shown: list[str] | None = None
) -> Any:
    return HOLDER.seal(seal_task(options, Given([words]), kept, shown=shown if shown is not None else []))


def opens(where: dict[str, Any], kept: Identity, words: bytes = WORDS, **changes: Any) -> bool:
    with HOLDER.open(open_task(where, Given([words]), **changes)).identity as found:
        return found.equals(kept)


@pytest.mark.parametrize(
    "words", [WORDS, "Grüße aus dem Süden".encode(), b"with a \t tab and \xff\xfe bytes", b"x" * 4096]
)
def test_the_passphrase_gives_the_identity_back(words: bytes) -> None:
    kept = identity()
    where = seal(kept, words)
    assert HOLDER.needs_person(where)
    assert opens(where, kept, words)


def test_what_is_asked() -> None:
    new, old = Given([WORDS]), Given([WORDS])
    where = HOLDER.seal(seal_task(QUICK, new, identity()))
    HOLDER.open(open_task(where, old)).identity.wipe()
    assert new.asked == ["new passphrase for second"]
    assert old.asked == ["passphrase for second"]


def test_other_code_opens_it() -> None:
    kept = identity()
    where = seal(kept, options=PassphraseOptions(memory=16, passes=2))
    assert (where["memory"], where["passes"]) == (16, 2)
    material = Argon2id(
        salt=base64.b64decode(where["salt"]), length=32, iterations=2, lanes=1, memory_cost=16 * 1024
    ).derive(WORDS)
    bound = {"name": SUBJECT.name, "set": SUBJECT.set_id.hex(), "volume": SUBJECT.volume}
    assert unwrap(material, base64.b64decode(where["wrapped"]), "passphrase", bound) == bytes(kept.view)


@pytest.mark.parametrize("wrong", [WORDS[:-1], WORDS + b" ", WORDS.upper(), b"x", b"\xff" * 100])
def test_wrong_passphrase(wrong: bytes) -> None:
    where = seal(identity())
    with pytest.raises(RefusedError, match=r"^the passphrase for second is wrong$") as caught:
        HOLDER.open(open_task(where, Given([wrong])))
    assert not caught.value.tampered
    assert "keyboard" in caught.value.hint


def test_two_ways_to_write_one_letter_are_two_passphrases() -> None:
    """Bytes as typed: no normalisation, so that every console and every program agrees (docs/holders-people.md §2)."""
    kept = identity()
    where = seal(kept, "caf\u00e9 au lait".encode())
    with pytest.raises(RefusedError):
        opens(where, kept, "cafe\u0301 au lait".encode())


def test_same_passphrase_twice_wraps_differently() -> None:
    kept = identity()
    first, second = seal(kept), seal(kept)
    assert first["salt"] != second["salt"]
    assert first["wrapped"] != second["wrapped"]


def test_binding_to_volume_set_and_name_but_not_to_the_epoch() -> None:
    kept = identity()
    where = seal(kept)
    assert opens(where, kept, epoch=9, index=7)
    for change in ({"volume": "0" * 36}, {"set_id": bytes(16)}, {"name": "other"}):
        with pytest.raises(RefusedError, match="is wrong"):
            opens(where, kept, **change)


@pytest.mark.parametrize("field", ["salt", "wrapped", "memory", "passes"])
def test_altered_values_do_not_open(field: str) -> None:
    where = seal(identity())
    if isinstance(where[field], int):
        where[field] += 1
    else:
        altered = bytearray(base64.b64decode(where[field]))
        altered[0] ^= 1
        where[field] = base64.b64encode(altered).decode()
    with pytest.raises(RefusedError, match="is wrong"):
        HOLDER.open(open_task(where, Given([WORDS])))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("version", 2, "2 is not known here"),
        ("memory", 5000, "5000 is not from 8 to 4096"),
        ("memory", 0, "0 is not from 8 to 4096"),
        ("memory", True, "must be a whole number"),
        ("passes", 101, "101 is not from 1 to 100"),
        ("passes", 0, "0 is not from 1 to 100"),
        ("salt", "AAAA", "has 3 bytes, not 16"),
        ("wrapped", "AAAA", "has 3 bytes, not 48"),
        ("more", 1, "is not known here"),
    ],
)
def test_what_the_set_says_is_read_strictly(field: str, value: object, problem: str) -> None:
    where = seal(identity()) | {field: value}
    answers = Given([WORDS])
    with pytest.raises(TamperingError, match=problem):
        HOLDER.open(open_task(where, answers))
    assert answers.asked == []


def test_nothing_typed() -> None:
    where = seal(identity())
    with pytest.raises(UnavailableError, match=r"^nothing was typed$"):
        HOLDER.open(open_task(where, Given()))


@pytest.mark.parametrize(("words", "length"), [(b"1234567", 7), ("äöüßäöü".encode(), 7), (b"x", 1), (b"\x80" * 20, 0)])
def test_short_passphrases_are_refused(words: bytes, length: int) -> None:
    with pytest.raises(UsageError, match=rf"^the passphrase for second has {length} characters, fewer than 8$"):
        seal(identity(), words)


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        (b"a1b2c3d4e5f6", []),
        (WORDS, []),
        (b"a1b2c3d4", ["is short"]),
        (b"aaaaaaaaaaaa", ["very few different characters"]),
        ("Grüße aus Süd".encode(), ["not plain ASCII"]),
        ("üüüüüüüü".encode(), ["is short", "very few", "not plain ASCII"]),
    ],
)
def test_weak_passphrases_are_warned_of(words: bytes, warnings: list[str]) -> None:
    shown: list[str] = []
    seal(identity(), words, shown=shown)
    assert len(shown) == len(warnings)
    assert all(expected in found for expected, found in zip(warnings, shown, strict=True))
    assert not any(words.decode() in line for line in shown)


def test_too_little_memory_is_said_before_the_kernel_kills_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = identity()
    where = seal(kept)
    facts = tmp_path / "meminfo"
    monkeypatch.setattr(passphrase, "_MEMORY_FACTS", str(facts))
    facts.write_text("MemTotal:  2000000 kB\nMemAvailable:   7000 kB\n")
    answers = Given([WORDS])
    with pytest.raises(UnavailableError, match=r"needs 8 MiB of memory to be tried, 6 MiB are free$"):
        HOLDER.open(open_task(where, answers))
    with pytest.raises(UnavailableError, match="needs 8 MiB"):
        seal(kept)
    assert answers.asked == []
    for unknown in ("MemAvailable: lots kB\n", "MemTotal: 1 kB\n", "", "MemAvailable:\n"):
        facts.write_text(unknown)
        assert opens(where, kept)
    facts.unlink()
    assert opens(where, kept)
    facts.write_text("MemAvailable:   8192 kB\n")
    assert opens(where, kept)


def test_memory_that_cannot_be_had() -> None:
    import resource

    where = seal(identity()) | {"memory": 2048}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
    try:
        with pytest.raises(UnavailableError, match="Argon2id could not get 2048 MiB of memory"):
            HOLDER.open(open_task(where, Given([WORDS])))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_nothing_to_erase() -> None:
    kept = identity()
    where = seal(kept)
    HOLDER.erase(open_task(where, Given()))
    HOLDER.retire(open_task(where, Given()))
    assert opens(where, kept)
