# SPDX-License-Identifier: Apache-2.0
"""RFC 7512 URIs: what is understood, and everything that is refused."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.model import pkcs11_uri
from keyquorum.model.pkcs11_uri import KeyUri


def read(uri: str) -> KeyUri:
    return pkcs11_uri.parse(uri, "policy", MalformedError)


def test_everything_a_uri_can_say() -> None:
    assert read(
        "pkcs11:token=The%20Software%20PKCS%2311;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=4a11;"
        "slot-id=327;object=my-key;type=private;id=%69%95%3E%5C%F4%BD%EC%91"
    ) == KeyUri(
        token="The Software PKCS#11",
        manufacturer="Snake Oil, Inc.",
        model="1.0",
        serial="4a11",
        slot=327,
        object="my-key",
        id=bytes.fromhex("69953e5cf4bdec91"),
    )


def test_unescaped_characters_that_the_rfc_allows() -> None:
    assert read("pkcs11:object=a-._~:[]@!$'()*+,=&z").object == "a-._~:[]@!$'()*+,=&z"


def test_an_empty_path_says_nothing() -> None:
    assert read("pkcs11:") == KeyUri()


def test_words_for_the_key() -> None:
    assert read("pkcs11:object=a;id=%0A").key_words() == 'key "a" with id 0a'
    assert read("pkcs11:object=a").key_words() == 'key "a"'
    assert read("pkcs11:id=%0A%ff").key_words() == "key with id 0aff"
    assert read("pkcs11:token=a").key_words() == "key"


@pytest.mark.parametrize(
    ("uri", "field", "problem"),
    [
        ("", "", "must start with pkcs11:"),
        ("PKCS11:token=a", "", "must start with pkcs11:"),
        ("http://token=a", "", "must start with pkcs11:"),
        ("pkcs11:token=" + "a" * 1100, "", "is longer than 1024 characters"),
        ("pkcs11:token=a?pin-value=1234", "pin-value", "a PIN is asked for, never stored"),
        ("pkcs11:token=a;pin-value=1234", "pin-value", "a PIN is asked for, never stored"),
        ("pkcs11:token=a?pin-source=/pin", "pin-source", "give it as a credential"),
        ("pkcs11:token=a?module-path=/evil.so", "module-path", "modules come from the settings"),
        ("pkcs11:token=a?module-name=evil", "module-name", "modules come from the settings"),
        ("pkcs11:token=a?x-vendor=1", "x-vendor", "is not accepted after the question mark"),
        ("pkcs11:token=a?", "", "is not accepted after the question mark"),
        ("pkcs11:token=a;x-vendor=1", "x-vendor", "is not known here"),
        ("pkcs11:token=a;library-manufacturer=1", "library-manufacturer", "is not known here"),
        ("pkcs11:token=a;slot-description=1", "slot-description", "is not known here"),
        ("pkcs11:Token=a", "Token", "is not known here"),
        ("pkcs11:token=a;", "", "is not known here"),
        ("pkcs11:;token=a", "", "is not known here"),
        ("pkcs11:token=a;token=a", "token", "occurs twice"),
        ("pkcs11:token", "token", "has no value"),
        ("pkcs11:token=", "token", "has no value"),
        ("pkcs11:token=a b", "token", "does not allow unescaped"),
        ("pkcs11:token=a/b", "token", "does not allow unescaped"),
        ("pkcs11:token=a#b", "token", "does not allow unescaped"),
        ("pkcs11:token=ä", "token", "does not allow unescaped"),
        ("pkcs11:token=a%", "token", "does not allow unescaped"),
        ("pkcs11:token=a%4", "token", "does not allow unescaped"),
        ("pkcs11:token=a%zz", "token", "does not allow unescaped"),
        ("pkcs11:token=a%+1", "token", "does not allow unescaped"),
        ("pkcs11:token=%1b[2J", "token", "printable UTF-8"),
        ("pkcs11:token=a%00", "token", "printable UTF-8"),
        ("pkcs11:token=%ff", "token", "printable UTF-8"),
        ("pkcs11:token=" + "a" * 33, "token", "at most 32 bytes"),
        ("pkcs11:serial=" + "a" * 17, "serial", "at most 16 bytes"),
        ("pkcs11:object=" + "a" * 256, "object", "at most 255 bytes"),
        ("pkcs11:id=" + "a" * 256, "id", "is longer than 255 bytes"),
        ("pkcs11:slot-id=x", "slot-id", "must be a number"),
        ("pkcs11:slot-id=-1", "slot-id", "must be a number"),
        ("pkcs11:slot-id=%31%b2", "slot-id", "must be a number"),
        ("pkcs11:slot-id=" + "9" * 19, "slot-id", "must be a number"),
        ("pkcs11:type=public", "type", "must be private"),
        ("pkcs11:type=cert", "type", "must be private"),
    ],
)
def test_refused(uri: str, field: str, problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read(uri)
    assert caught.value.where == field
    assert problem in caught.value.problem
    assert "1234" not in caught.value.message


def test_the_error_is_the_callers() -> None:
    with pytest.raises(TamperingError, match=r"^set: type: "):
        pkcs11_uri.parse("pkcs11:type=data", "set", TamperingError)


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16).filter(
    lambda text: text.isprintable() and len(text.encode()) <= 16
)


@given(_TEXT, _TEXT, st.binary(min_size=1, max_size=40))
def test_whatever_is_escaped_comes_back(token: str, label: str, key_id: bytes) -> None:
    uri = f"pkcs11:token={quote(token, safe='')};object={quote(label, safe='')};id={quote(key_id, safe='')}"
    assert read(uri) == KeyUri(token=token, object=label, id=key_id)


@given(st.text(max_size=60))
def test_nothing_but_the_one_error(rest: str) -> None:
    with contextlib.suppress(MalformedError):
        read("pkcs11:" + rest)


def test_which_tokens_fit() -> None:
    shown = {"slot": 3, "token": "a", "manufacturer": "b", "model": "c", "serial": "d"}
    for uri, fits in (
        ("pkcs11:", True),
        ("pkcs11:token=a;manufacturer=b;model=c;serial=d;slot-id=3", True),
        ("pkcs11:token=A", False),
        ("pkcs11:manufacturer=x", False),
        ("pkcs11:model=x", False),
        ("pkcs11:serial=x", False),
        ("pkcs11:slot-id=0", False),
    ):
        assert read(uri).fits(**shown) is fits  # type: ignore[arg-type]  # one int among texts
