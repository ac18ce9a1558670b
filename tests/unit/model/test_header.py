# SPDX-License-Identifier: Apache-2.0
"""The header descriptor: every fact that decides how data is read changes it, and nothing else does (docs/token.md §3)."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError, TryAgainError, UsageError
from keyquorum.model import header
from keyquorum.model.header import HeaderDescriptor
from unit.model.objects import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[dict[str, Any]], object]

# What cryptsetup 2.6 writes, shortened where nothing depends on it.
METADATA: dict[str, Any] = {
    "keyslots": {
        "0": {
            "type": "luks2",
            "key_size": 64,
            "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {
                "type": "raw",
                "offset": "32768",
                "size": "258048",
                "encryption": "aes-xts-plain64",
                "key_size": 64,
            },
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "AAEC"},
        },
        "5": {"type": "luks2", "key_size": 64},
    },
    "tokens": {"0": {"type": "systemd-tpm2", "keyslots": ["0"]}},
    "segments": {
        "0": {
            "type": "crypt",
            "offset": "16777216",
            "size": "dynamic",
            "iv_tweak": "0",
            "encryption": "aes-xts-plain64",
            "sector_size": 512,
        }
    },
    "digests": {
        "0": {
            "type": "pbkdf2",
            "keyslots": ["0", "5"],
            "segments": ["0"],
            "hash": "sha256",
            "iterations": 1000,
            "salt": "BBBB",
            "digest": "CCCC",
        }
    },
    "config": {"json_size": "12288", "keyslots_size": "16744448"},
}


def describe(metadata: Any, uuid: str = UUID) -> HeaderDescriptor:
    return header.describe(json.dumps(metadata).encode(), uuid)


def with_change(change: Change) -> dict[str, Any]:
    metadata = copy.deepcopy(METADATA)
    change(metadata)
    return metadata


def segment(table: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = table["segments"]["0"]
    return found


BOUND: dict[str, tuple[str, Change]] = {
    "cipher": ("segments", lambda t: segment(t).update(encryption="aes-cbc-essiv:sha256")),
    "offset": ("segments", lambda t: segment(t).update(offset="16777728")),
    "size": ("segments", lambda t: segment(t).update(size="1048576")),
    "IV tweak": ("segments", lambda t: segment(t).update(iv_tweak="8")),
    "sector size": ("segments", lambda t: segment(t).update(sector_size=4096)),
    "integrity": ("segments", lambda t: segment(t).update(integrity={"type": "hmac(sha256)"})),
    "field nobody knows yet": ("segments", lambda t: segment(t).update(novelty=1)),
    "number of the segment": (
        "segments",
        lambda t: (
            t["segments"].update({"1": t["segments"].pop("0")}),
            t["digests"]["0"].update(segments=["1"]),
        ),
    ),
    "second segment": (
        "segments",
        lambda t: (
            t["segments"].update({"1": dict(segment(t), offset="999424")}),
            t["digests"]["0"].update(segments=["0", "1"]),
        ),
    ),
    "digest": ("digest", lambda t: t["digests"]["0"].update(digest="DDDD")),
    "digest's salt": ("digest", lambda t: t["digests"]["0"].update(salt="DDDD")),
    "digest's hash": ("digest", lambda t: t["digests"]["0"].update(hash="sha1")),
    "digest's iterations": ("digest", lambda t: t["digests"]["0"].update(iterations=1)),
    "digest's type": ("digest", lambda t: t["digests"]["0"].update(type="argon2id")),
    "requirement": ("requirements", lambda t: t["config"].update(requirements={"mandatory": ["inline-hw-tags"]})),
}


@pytest.mark.parametrize("name", BOUND)
def test_bound(name: str) -> None:
    field, change = BOUND[name]
    enrolled = describe(METADATA)
    differences = enrolled.differences(describe(with_change(change)))
    assert [difference[0] for difference in differences] == [field]


def test_the_uuid_is_bound() -> None:
    assert describe(METADATA).differences(describe(METADATA, "f" * 36)) == [("uuid", UUID, "f" * 36)]


FREE: dict[str, Change] = {
    "another keyslot": lambda t: t["keyslots"].update({"1": t["keyslots"]["0"]}),
    "a keyslot less": lambda t: t["keyslots"].clear(),
    "a keyslot's kdf": lambda t: t["keyslots"]["0"]["kdf"].update(iterations=5),
    "tokens": lambda t: t["tokens"].clear(),
    "keyslots of the digest": lambda t: t["digests"]["0"].update(keyslots=["0", "1"]),
    "activation flags": lambda t: t["config"].update(flags=["allow-discards"]),
    "no mandatory requirement": lambda t: t["config"].update(requirements={"mandatory": []}),
    "a digest of an unbound keyslot": lambda t: t["digests"].update({"1": {"type": "pbkdf2", "segments": []}}),
}


@pytest.mark.parametrize("name", FREE)
def test_not_bound(name: str) -> None:
    assert describe(with_change(FREE[name])) == describe(METADATA)


def test_order_and_space_do_not_matter() -> None:
    again = json.dumps(json.loads(json.dumps(METADATA, sort_keys=True)), indent=4).encode()
    assert header.describe(again, UUID) == describe(METADATA)


REFUSED: dict[str, tuple[Any, str]] = {
    "not a table": ([], "segments: is missing"),
    "no segments": (with_change(lambda t: t.pop("segments")), "segments: is missing"),
    "empty segments": (with_change(lambda t: t["segments"].clear()), "segments: there is none"),
    "segments are a list": (with_change(lambda t: t.update(segments=[1])), "segments: is missing"),
    "a segment is a text": (
        with_change(lambda t: t["segments"].update({"0": "x"})),
        "segments.0: is not an encrypted one",
    ),
    "linear segment": (with_change(lambda t: segment(t).update(type="linear")), "segments.0: is not an encrypted one"),
    "no cipher at all": (
        with_change(lambda t: segment(t).update(encryption="cipher_null-ecb")),
        "segments.0.encryption: cipher_null-ecb encrypts nothing",
    ),
    "no cipher, kernel's spelling": (
        with_change(lambda t: segment(t).update(encryption="capi:ecb(cipher_null)-plain64")),
        "segments.0.encryption: capi:ecb(cipher_null)-plain64 encrypts nothing",
    ),
    "cipher missing": (with_change(lambda t: segment(t).pop("encryption")), "segments.0.encryption: is missing"),
    "cipher as a number": (with_change(lambda t: segment(t).update(encryption=5)), "segments.0.encryption: is missing"),
    "backup segment": (
        with_change(
            lambda t: (
                t["segments"].update({"1": dict(segment(t), flags=["backup-final"])}),
                t["digests"]["0"].update(segments=["0", "1"]),
            )
        ),
        "segments.1.flags: a re-encryption is under way",
    ),
    "segment under re-encryption": (
        with_change(lambda t: segment(t).update(flags=["in-reencryption"])),
        "segments.0.flags: a re-encryption is under way",
    ),
    "flags nobody knows": (
        with_change(lambda t: segment(t).update(flags="x")),
        "segments.0.flags: a re-encryption is under way",
    ),
    "two digests": (
        with_change(lambda t: t["digests"].update({"1": t["digests"]["0"]})),
        "digests: 2 digests cover the segments, not 1",
    ),
    "no digest": (with_change(lambda t: t["digests"].clear()), "digests: 0 digests cover the segments, not 1"),
    "digest of another segment": (
        with_change(lambda t: t["digests"]["0"].update(segments=["1"])),
        "digests: 0 digests cover the segments, not 1",
    ),
    "digest of half the segments": (
        with_change(lambda t: t["segments"].update({"1": segment(t)})),
        "digests: 0 digests cover the segments, not 1",
    ),
    "digest's segments as tables": (
        with_change(lambda t: t["digests"]["0"].update(segments=[{}])),
        "digests: 0 digests cover the segments, not 1",
    ),
    "digest's segments as a number": (
        with_change(lambda t: t["digests"]["0"].update(segments=5)),
        "digests: 0 digests cover the segments, not 1",
    ),
    "digests missing": (with_change(lambda t: t.pop("digests")), "digests: is missing"),
    "config is a list": (with_change(lambda t: t.update(config=[1])), "config: is not a table"),
    "requirements are a list": (
        with_change(lambda t: t["config"].update(requirements=["x"])),
        "config.requirements: is not a table",
    ),
    "mandatory ones are a text": (
        with_change(lambda t: t["config"].update(requirements={"mandatory": "x"})),
        "config.requirements.mandatory: is not a list of texts",
    ),
    "a mandatory one is a number": (
        with_change(lambda t: t["config"].update(requirements={"mandatory": [5]})),
        "config.requirements.mandatory: is not a list of texts",
    ),
    "a mandatory one holds the separator": (
        with_change(lambda t: t["config"].update(requirements={"mandatory": ["a,b"]})),
        "config.requirements.mandatory: is not a list of texts",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    metadata, words = REFUSED[name]
    with pytest.raises(TamperingError) as caught:
        describe(metadata)
    assert str(caught.value) == f"LUKS2 header: {words}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["0", "crypt", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "type", "segments", "mandatory", "keyslots"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("segments", "digests", "config", "tokens", "keyslots"), JSON)))
def test_no_metadata_makes_another_error(metadata: dict[str, Any]) -> None:
    data = json.dumps(metadata).encode()
    readers: tuple[Callable[[], object], ...] = (
        lambda: header.describe(data, UUID),
        lambda: header.tokens(data),
        lambda: header.keyslots(data),
        lambda: header.refuse_unusual(data),
    )
    for read in readers:
        with contextlib.suppress(TamperingError, TryAgainError, UsageError):
            read()


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["segments", "digests", "config", "requirements"]),
    st.lists(st.sampled_from(["0", "segments", "digest", "salt", "requirements", "mandatory", "flags"]), max_size=3),
    JSON,
)
def test_no_misshapen_part_makes_another_error(part: str, path: list[str], value: Any) -> None:
    metadata = copy.deepcopy(METADATA)
    table = metadata.setdefault(part, {})
    for step in path[:-1]:
        table = table.setdefault(step, {}) if isinstance(table, dict) else {}
    if isinstance(table, dict) and path:
        table[path[-1]] = value
    with contextlib.suppress(TamperingError):
        describe(metadata)


def test_a_header_under_re_encryption_is_enrolled_later() -> None:
    for change in (
        lambda t: t["config"].update(requirements={"mandatory": ["online-reencrypt-v2"]}),
        lambda t: t["config"].update(requirements={"mandatory": ["offline-reencrypt"]}),
        lambda t: segment(t).update(flags=["in-reencryption"]),
        lambda t: t["keyslots"].update({"1": {"type": "reencrypt"}}),
    ):
        with pytest.raises(TryAgainError, match="the volume is being re-encrypted") as caught:
            header.refuse_unusual(json.dumps(with_change(change)).encode())
        assert caught.value.hint == "finish it first: cryptsetup reencrypt --resume-only"


def test_a_header_with_features_nobody_checked_is_not_enrolled() -> None:
    metadata = with_change(lambda t: t["config"].update(requirements={"mandatory": ["opal", "inline-hw-tags"]}))
    with pytest.raises(
        UsageError, match=r"^the header requires inline-hw-tags,opal, which keyquorum does not support$"
    ):
        header.refuse_unusual(json.dumps(metadata).encode())
    header.refuse_unusual(json.dumps(METADATA).encode())


def test_tokens_and_keyslots() -> None:
    data = json.dumps(with_change(lambda t: t["tokens"].update({"1": 5}))).encode()
    assert header.tokens(data) == {"0": {"type": "systemd-tpm2", "keyslots": ["0"]}}
    assert header.keyslots(data) == ["0", "5"]
    for reader in (header.tokens, header.keyslots):
        with pytest.raises(TamperingError, match=r"^LUKS2 header: not JSON$"):
            reader(b"")


def test_keyslots_are_those_that_open_the_volume() -> None:
    """A keyslot that no digest of the segments names (cryptsetup luksAddKey --unbound) holds another key."""
    metadata = with_change(lambda t: (t["digests"]["0"].update(keyslots=["5"]), t["keyslots"].update({"7": {}})))
    assert header.keyslots(json.dumps(metadata).encode()) == ["5"]
