# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes: the published encoding, and what is not believed."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.envelope import dsse
from keyquorum.envelope.dsse import FRAGMENT_TYPE, SET_TYPE, PublicKey
from keyquorum.envelope.signing import Owner
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from unit.model.objects import judge

OWNER, OTHER = (Owner(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (1, 2))
PAYLOAD = b'{"hello":"world"}'
TABLE = OWNER.sign(SET_TYPE, PAYLOAD)

# The eight points of small order on Ed25519, in their canonical and their other encodings (RFC 8032 §5.1.3 decodes them).
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def verify(table: Any, payload_type: str = SET_TYPE, owners: tuple[Owner, ...] = (OWNER,)) -> bytes:
    return dsse.verify(dsse.parse(table, "set"), payload_type, tuple(owner.public for owner in owners))


def refusal(table: Any, payload_type: str = SET_TYPE, owners: tuple[Owner, ...] = (OWNER,)) -> str:
    with pytest.raises(TamperingError) as caught:
        verify(table, payload_type, owners)
    return str(caught.value)


def test_the_encoding_of_the_specification() -> None:
    """The example in secure-systems-lab/dsse, protocol.md."""
    encoded = dsse.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pre_authentication_encoding("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_signed_and_verified() -> None:
    assert verify(TABLE) == PAYLOAD
    assert verify(TABLE, owners=(OTHER, OWNER)) == PAYLOAD
    assert set(TABLE) == {"payloadType", "payload", "signatures"}


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=2000), st.sampled_from([SET_TYPE, FRAGMENT_TYPE]))
def test_any_payload(payload: bytes, payload_type: str) -> None:
    assert verify(OWNER.sign(payload_type, payload), payload_type) == payload


def test_another_type_is_refused_before_its_signature() -> None:
    assert refusal(TABLE, FRAGMENT_TYPE) == f"set: payloadType: is {SET_TYPE}, not {FRAGMENT_TYPE}"
    assert "does not match" in refusal(TABLE | {"payloadType": FRAGMENT_TYPE}, FRAGMENT_TYPE)


def test_a_changed_payload() -> None:
    words = f"set: signatures: the signature of owner {OWNER.public.key_id} does not match"
    for payload in (b"", PAYLOAD + b" ", b"x" + PAYLOAD[1:]):
        assert refusal(TABLE | {"payload": strict_json.to_base64(payload)}) == words


def test_other_signers() -> None:
    assert refusal(TABLE, owners=(OTHER,)) == (
        f"set: signatures: signed by {OWNER.public.key_id}, trusted are {OTHER.public.key_id}"
    )
    assert refusal(TABLE, owners=()) == f"set: signatures: signed by {OWNER.public.key_id}, trusted are none"
    assert (
        refusal(TABLE | {"signatures": []}) == f"set: signatures: signed by nobody, trusted are {OWNER.public.key_id}"
    )


def test_a_name_does_not_make_a_signature() -> None:
    forged = OTHER.sign(SET_TYPE, PAYLOAD)
    forged["signatures"][0]["keyid"] = OWNER.public.key_id
    assert "does not match" in refusal(forged)


def test_signatures_of_strangers_beside_the_owners() -> None:
    both = TABLE | {"signatures": [*OTHER.sign(SET_TYPE, PAYLOAD)["signatures"], *TABLE["signatures"]]}
    assert verify(both) == PAYLOAD


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_of_small_order_verifies_nothing(key: str) -> None:
    """With such a key the signature (R = identity, S = 0) is right for every message where nobody checks the key."""
    weak = PublicKey(raw=bytes.fromhex(key))
    for point in SMALL_ORDER:
        signature = strict_json.to_base64(bytes.fromhex(point) + bytes(32))
        table = TABLE | {"signatures": [{"keyid": weak.key_id, "sig": signature}]}
        with pytest.raises(TamperingError, match="does not match"):
            dsse.verify(dsse.parse(table, "set"), SET_TYPE, (weak,))


def test_signatures_are_not_malleable() -> None:
    """RFC 8032 §5.1.7: S must be below the group's order."""
    order = (1 << 252) + 27742317777372353535851937790883648493
    raw = dsse.parse(TABLE, "set").signatures[0][1]
    shifted = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    row = {"keyid": OWNER.public.key_id, "sig": strict_json.to_base64(shifted)}
    assert "does not match" in refusal(TABLE | {"signatures": [row]})


REFUSED: dict[str, tuple[Any, str]] = {
    "no table": ([], "set: must be a table"),
    "type missing": ({"payload": "", "signatures": []}, "set: payloadType: is missing"),
    "payload as a table": (TABLE | {"payload": {}}, "set: payload: must be base64"),
    "short signature": (
        TABLE | {"signatures": [{"keyid": "x", "sig": "AAEC"}]},
        "set: signatures[0].sig: has 3 bytes, not 64",
    ),
    "five signatures": (TABLE | {"signatures": TABLE["signatures"] * 5}, "set: signatures: has 5 items, more than 4"),
    "unknown field": (TABLE | {"x": 1}, "set: x: is not known here"),
    "escape sequence in the type": (
        TABLE | {"payloadType": "\x1b[2J"},
        "set: payloadType: holds characters that do not print",
    ),
    "huge payload": (
        TABLE | {"payload": strict_json.to_base64(bytes(dsse.MAX_PAYLOAD + 1))},
        "set: payload: has 32769 bytes, more than 32768",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    table, words = REFUSED[name]
    assert refusal(table) == words


def test_every_damage_is_refused_or_seen() -> None:
    data = strict_json.serialise(TABLE)
    judge(lambda text: verify(strict_json.parse(text, "set", 1 << 16, TamperingError)), data, TamperingError)


def test_nobody_signs_what_nobody_would_read() -> None:
    OWNER.sign(SET_TYPE, bytes(dsse.MAX_PAYLOAD))
    with pytest.raises(ValueError, match="a payload of 32769 bytes is more than 32768"):
        OWNER.sign(SET_TYPE, bytes(dsse.MAX_PAYLOAD + 1))


def test_an_owner_is_shown_by_the_name_of_the_public_key() -> None:
    assert repr(OWNER) == f"<Owner {OWNER.public.key_id}>"
