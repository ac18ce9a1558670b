# SPDX-License-Identifier: Apache-2.0
"""Valid objects of every kind, and all the ways to damage one that its reader is tried with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keyquorum.model.anchor import Anchor
from keyquorum.model.fragment import Description, Fragment
from keyquorum.model.fragment_disk import Entry
from keyquorum.model.header import HeaderDescriptor
from keyquorum.model.tree import Leaf, Node
from keyquorum.model.volume_set import WRAPPED, Placement, VolumeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyquorum.errors import KeyquorumError

UUID = "0b6bd4d6-3cf3-4bd4-a3c5-1f4a4d4f8f5a"
SET_ID = bytes(range(16))

DESCRIPTION = Description(
    volume=UUID,
    set_id=SET_ID,
    epoch=3,
    index=2,
    total=3,
    threshold=2,
    path=(2,),
    name="vault",
    kind="disk",
    recipient=bytes(range(16, 32)),
    issued=1_700_000_000,
    expires=1_800_000_000,
)
FRAGMENT = Fragment(description=DESCRIPTION, kem="x25519", enc=bytes(range(32)), ciphertext=bytes(range(80)))
HEADER = HeaderDescriptor(
    uuid=UUID,
    segments='{"0":{"encryption":"aes-xts-plain64","offset":"16777216","type":"crypt"}}',
    digest="5a" * 32,
    requirements="",
)
POLICY = Node(threshold=2, children=(Leaf(index=1), Leaf(index=2), Leaf(index=3)))
VOLUME_SET = VolumeSet(
    volume=UUID,
    set_id=SET_ID,
    epoch=3,
    mode=WRAPPED,
    key_size=64,
    issued=1_700_000_000,
    header=HEADER,
    policy=POLICY,
    placements=tuple(
        Placement(
            index=index,
            name=name,
            kind=kind,
            recipient=bytes(range(16, 32)),
            commitment=bytes([index]) * 32,
            where={"a": "b", "list": [1, {}]},
        )
        for index, name, kind in ((1, "board", "tpm"), (2, "vault", "disk"), (3, "safe", "sheet"))
    ),
    nonce=bytes(24),
    wrapped=bytes(80),
    measure_pcr=15,
    keyslot=-1,
)
ANCHOR = Anchor(volume=UUID, owners=(bytes(range(32)), bytes(range(32, 64))), epoch=3)
ENVELOPE = {"payloadType": "t", "payload": "AAEC", "signatures": [{"keyid": "k", "sig": "AA" * 43 + "A="}]}
ENTRY = Entry(volume=UUID, set_id=SET_ID, epoch=3, index=2, envelope={"payload": "AAEC"})


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give every truncation, every single bit turned over, every byte doubled and every byte left out."""
    for size in range(len(data)):
        yield f"cut after {size} bytes", data[:size]
    for at, byte in enumerate(data):
        for bit in range(8):
            yield f"bit {bit} of byte {at}", data[:at] + bytes([byte ^ 1 << bit]) + data[at + 1 :]
        yield f"byte {at} twice", data[: at + 1] + data[at:]
        yield f"without byte {at}", data[:at] + data[at + 1 :]
    yield "doubled", data + data
    yield "zero byte after it", data + b"\0"


def tables_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every table in a JSON value."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from tables_of(item, (*path, name))


def changed(data: bytes, path: tuple[str | int, ...], change: Callable[[dict[str, Any]], None]) -> bytes:
    """Change the table at a path of a JSON text."""
    value = json.loads(data)
    table = value
    for step in path:
        table = table[step]
    change(table)
    return json.dumps(value).encode()


WRONG: tuple[Any, ...] = (None, True, 0, -1, 1 << 62, "", "\x1b[2J", "x" * 5000, [], [None], {}, {"x": 1})


def misshapen(data: bytes, free: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Give texts in which a field is missing, added or there twice; tables below a name in `free` are left alone."""
    for path, table in _strict_tables(data, free):
        yield f"{path} has a field more", changed(data, path, lambda found: found.update(surprise=1))
        for name in table:
            where = (*path, name)
            yield f"{where} is missing", changed(data, path, lambda found, name=name: found.pop(name))  # type: ignore[misc]  # lambda default
            text = json.dumps(name).encode() + b":"
            yield f"{where} stands there twice", data.replace(text, text + b"1," + text)


def mistyped(data: bytes, free: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Give texts in which one field has a value of another type or size. Some of them may mean something."""
    for path, table in _strict_tables(data, free):
        for name, value in table.items():
            for wrong in WRONG:
                if wrong != value or isinstance(wrong, bool) != isinstance(value, bool):
                    replaced = changed(data, path, lambda found, name=name, wrong=wrong: found.update({name: wrong}))  # type: ignore[misc]  # lambda default
                    yield f"{(*path, name)} is {str(wrong)[:20]!r}", replaced


def _strict_tables(data: bytes, free: tuple[str, ...]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    for path in tables_of(json.loads(data)):
        if not set(free) & set(path):
            tables: list[dict[str, Any]] = []
            changed(data, path, tables.append)
            yield path, tables[0]


def judge(read: Callable[[bytes], Any], data: bytes, error: type[KeyquorumError], free: tuple[str, ...] = ()) -> None:
    """Try a reader with everything above: it refuses in printable words, or what it read is not what was written."""
    good = read(data)
    for what, wrong in (*damaged(data), *mistyped(data, free)):
        if _refusal(read, wrong, error, what) is None:
            assert read(wrong) != good, f"{what}: read as if nothing were wrong"
    for what, wrong in misshapen(data, free):
        assert _refusal(read, wrong, error, what) is not None, f"{what}: accepted"


def _refusal(read: Callable[[bytes], Any], data: bytes, error: type[KeyquorumError], what: str) -> str | None:
    try:
        read(data)
    except error as refusal:
        words = refusal.message
    else:
        return None
    assert words.isprintable(), f"{what}: {words!r}"
    assert len(words) < 500, f"{what}: {words!r}"
    return words
