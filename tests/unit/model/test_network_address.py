# SPDX-License-Identifier: Apache-2.0
"""Addresses of custodians: each has one spelling, and nothing else is one."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import MalformedError
from keyquorum.model.fields import Fields
from keyquorum.model.network_address import IPV4, IPV6, NAME, parse, take

GOOD = {
    "custodian.example:4433": NAME,
    "eu-1:1": NAME,
    "xn--bcher-kva.example:65535": NAME,
    "192.0.2.7:443": IPV4,
    "[2001:db8::7]:443": IPV6,
    "[::1]:443": IPV6,
    "[1:2:3:4:5:6:7:8]:443": IPV6,
}
BAD = (
    *(
        "",
        ":",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:01",
        "a:1e3",
        "a:\uff11",
        "A:1",
        "a_b:1",
        "-a:1",
    ),
    *("a-:1", "a..b:1", ".a:1", "a.:1", "1.2.3:1", "1.2.3.4.5:1", "1.2.3.256:1", "1.2.3.04:1", "ü.example:1"),
    *("2001:db8::7:443", "[2001:db8::7]", "[]:1", "[1:2]:1", "[1:2:3:4:5:6:7:8:9]:1", "[1::2::3]:1", "[::g]:1"),
    *(
        "[fe80::1%eth0]:1",
        "[:1]:1",
        "[::12345]:1",
        "[1.2.3.4]:1",
        "a\n:1",
        "a/b:1",
        "a" * 64 + ":1",
        "a." * 140 + "a:1",
    ),
)


@pytest.mark.parametrize("text", GOOD)
def test_taken(text: str) -> None:
    found = parse(text)
    assert found is not None
    assert (found.kind, str(found)) == (GOOD[text], text)


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    assert parse(text) is None


@given(st.ip_addresses(v=6))
def test_every_address_as_the_library_writes_it(address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is None:
        assert parse(f"[{address}]:443") is not None
    assert parse(f"[{address.exploded}]:443") is not None


@given(st.text(max_size=30))
def test_what_is_taken_is_an_address_to_others_too(text: str) -> None:
    found = parse(text)
    if found is not None and found.kind != NAME:
        ipaddress.ip_address(found.host)


def test_a_list() -> None:
    assert len(take(Fields({"at": ["a:1", "[::1]:2"]}, "x", MalformedError), "at")) == 2


@pytest.mark.parametrize("rows", [[], ["a:1", "a:1"], [1], [f"a{i}:1" for i in range(9)], "a:1"])
def test_a_list_that_is_refused(rows: object) -> None:
    with pytest.raises(MalformedError):
        take(Fields({"at": rows}, "x", MalformedError), "at")
