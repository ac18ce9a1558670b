# SPDX-License-Identifier: Apache-2.0
"""`where` of a TPM holder: what is written is read, everything else is refused (docs/holders-tpm.md §2, §6)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.holders import tpm_where
from keyquorum.holders.tpm import HOLDER
from keyquorum.holders.tpm_where import Facts, SignedPolicy, Where
from keyquorum.model import strict_json


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


MINIMAL = {
    "version": 1,
    "srk": {"type": "ecc", "name": b64(b"n" * 32)},
    "public": b64(b"p" * 78),
    "private": b64(b"q" * 160),
    "bank": "sha256",
}
FULL = {
    **MINIMAL,
    "pcrs": {"7": b64(b"7" * 32), "11": b64(b"e" * 32)},
    "signed": {"pcrs": [11], "key": b64(b"k" * 280), "pkfp": b64(b"f" * 32)},
    "facts": {"pcr": 13, "bios-version": "1.14.0", "cpu-model": "Example CPU @ 2.00GHz"},
    "pin": b64(b"s" * 16),
}

printable = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=128)


@pytest.mark.parametrize("table", [MINIMAL, FULL])
def test_it_is_read_and_written_alike(table: dict[str, Any]) -> None:
    assert tpm_where.parse(table).to_json() == table


@given(
    pcrs=st.dictionaries(st.integers(0, 12), st.binary(min_size=48, max_size=48)),
    facts=st.none() | st.dictionaries(st.sampled_from(["bios-version", "cpu-model"]), printable, min_size=1),
    salt=st.just(b"") | st.binary(min_size=16, max_size=16),
    signed=st.none() | st.sets(st.integers(0, 23), min_size=1),
)
def test_what_was_written_is_read(
    pcrs: dict[int, bytes], facts: dict[str, str] | None, salt: bytes, signed: set[int] | None
) -> None:
    made = Where(
        srk=b"n" * 32,
        srk_kind="rsa",
        public=b"p",
        private=b"q" * 200,
        bank="sha384",
        pcrs=pcrs,
        facts=Facts(pcr=13, values=facts) if facts else None,
        salt=salt,
        signed=SignedPolicy(pcrs=tuple(sorted(signed)), signer=b"k", fingerprint=b"f" * 32) if signed else None,
    )
    table = strict_json.parse(strict_json.serialise(made.to_json()), "set", 8192, TamperingError)
    assert tpm_where.parse(table) == made
    assert HOLDER.needs_person(table) == bool(salt)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"srk": None}, "srk"),
        ({"srk": {"type": "x25519", "name": b64(b"n" * 32)}}, "srk.type"),
        ({"srk": {"type": "ecc", "name": b64(b"n" * 34)}}, "srk.name"),
        ({"srk": {"type": "ecc", "name": b64(b"n" * 32), "handle": 5}}, "srk.handle"),
        ({"public": b64(b"p" * 1025)}, "public"),
        ({"private": b64(b"p" * 513)}, "private"),
        ({"private": "?"}, "private"),
        ({"bank": "md5"}, "bank"),
        ({"bank": "sha384"}, "pcrs"),
        ({"pcrs": {"24": b64(bytes(32))}}, "pcrs.24"),
        ({"pcrs": {"07": b64(bytes(32))}}, "pcrs.07"),
        ({"pcrs": {"7": b64(bytes(20))}}, "pcrs.7"),
        ({"pcrs": {"13": b64(bytes(32))}}, "facts"),
        ({"pcrs": [7]}, "pcrs"),
        ({"signed": {"pcrs": [], "key": b64(b"k"), "pkfp": b64(b"f" * 32)}}, "signed.pcrs"),
        ({"signed": {"pcrs": [11, 11], "key": b64(b"k"), "pkfp": b64(b"f" * 32)}}, "signed.pcrs"),
        ({"signed": {"pcrs": [True], "key": b64(b"k"), "pkfp": b64(b"f" * 32)}}, "signed.pcrs"),
        ({"signed": {"pcrs": [11], "key": b64(b"k"), "pkfp": b64(b"f" * 31)}}, "signed.pkfp"),
        ({"signed": {"pcrs": [11], "key": b64(bytes(1025)), "pkfp": b64(b"f" * 32)}}, "signed.key"),
        ({"facts": {"pcr": 13}}, "facts"),
        ({"facts": {"pcr": 24, "cpu-model": "x"}}, "facts.pcr"),
        ({"facts": {"pcr": 13, "cpu-model": "\x1b[2J"}}, "facts.cpu-model"),
        ({"facts": {"pcr": 13, "cpu-model": "x", "moon": "full"}}, "facts.moon"),
        ({"pin": b64(b"s" * 15)}, "pin"),
        ({"more": 1}, "more"),
    ],
    ids=str,
)
def test_anything_else_is_refused_and_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(TamperingError) as caught:
        tpm_where.parse({**FULL, **change})
    assert f"where.{field}" in caught.value.message


def test_facts_are_hashed_in_one_order_and_form() -> None:
    facts = {"cpu-model": "c", "bios-version": "b"}
    measured = b"keyquorum/v1/facts\x00bios-version=b\x00cpu-model=c"
    assert tpm_where.canonical(facts) == measured
    assert tpm_where.canonical({"cpu-model": "c"}) == b"keyquorum/v1/facts\x00cpu-model=c"
    for bank, size in (("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)):
        inner = hashlib.new(bank, measured).digest()
        assert tpm_where.predicted(bank, facts) == hashlib.new(bank, bytes(size) + inner).digest()


def test_the_facts_are_bound_like_any_pcr() -> None:
    where = tpm_where.parse(FULL)
    assert where.facts is not None
    assert where.bound() == {**where.pcrs, 13: tpm_where.predicted("sha256", where.facts.values)}
