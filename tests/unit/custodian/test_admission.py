# SPDX-License-Identifier: Apache-2.0
"""Who gets a connection, what is counted, and what an error becomes."""

from __future__ import annotations

import os

import pytest

from keyquorum.custodian import counters, endpoints
from keyquorum.custodian.admission import Admission, Limits, Pace, block
from keyquorum.custodian.counters import Counters
from keyquorum.custodian.http_head import RequestError
from keyquorum.custodian.store_releases import CrowdedError
from keyquorum.errors import (
    KeyquorumError,
    MalformedError,
    RefusedError,
    TamperingError,
    TryAgainError,
    UnavailableError,
    UsageError,
)


def test_room_for_all_and_for_one() -> None:
    desk = Admission(Limits(connections=3, for_one=2))
    assert [desk.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert desk.enter("192.0.2.2")
    assert not desk.enter("192.0.2.3"), "three in all"
    desk.leave("192.0.2.1")
    assert desk.enter("192.0.2.3")
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        desk.leave(address)
    assert desk.total == 0
    assert desk._open == {}, "nothing is remembered of who is gone"


def test_whose_an_address_is() -> None:
    assert block("192.0.2.1") == "192.0.2.1"
    assert block("::ffff:192.0.2.1") == "192.0.2.1"
    assert block("2001:db8::1") == block("2001:db8::ffff:2") == "2001:db8::/64"
    assert block("2001:db8:0:1::1") != block("2001:db8::1")
    assert block("fe80::1%eth0") == "fe80::/64"
    assert block("not an address") == "not an address"


def test_processes_share_the_bounds() -> None:
    assert (Limits().shared(4).connections, Limits().shared(4).for_one) == (256, 16)
    assert Limits().shared(1000).for_one == 1


def test_counters_are_summed_over_workers() -> None:
    descriptor, seen = counters.make(2)
    one, two = Counters(descriptor, 2, 0), Counters(descriptor, 2, 1)
    one.add("ready")
    one.add("answers_200", 3)
    two.add("answers_200")
    two.add("connections_open", 5)
    assert (seen.total("ready"), seen.total("answers_200"), seen.total("connections_open")) == (1, 4, 5)
    assert (seen.started(0), seen.started(1)) == (True, False)
    seen.over(1)
    seen.over(0)
    assert (seen.total("ready"), seen.total("answers_200"), seen.total("connections_open")) == (0, 4, 0)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (RequestError(404, "x"), 404, 0),
        (CrowdedError("x"), 429, 60),
        (RefusedError("x"), 403, 0),
        (TamperingError("the deposit", "", "x"), 400, 0),
        (MalformedError("the question to the log", "", "x"), 400, 0),
        (TamperingError("the custodian's store", "", "x"), 503, 5),
        (MalformedError("/var/lib/keyquorum-custodian/custodian.toml", "", "x"), 503, 5),
        (UsageError("x"), 409, 0),
        (TryAgainError("x"), 503, 5),
        (UnavailableError("the token was removed"), 503, 60),
        (KeyquorumError("x"), 503, 5),
    ],
)
def test_what_an_error_becomes(error: KeyquorumError, status: int, wait: int) -> None:
    answer = endpoints.failure(error)
    assert (answer.status, answer.retry_after) == (status, wait)
    assert b"token" not in answer.body, "what is wrong with the custodian's key is no client's business"


def test_nobody_fills_the_log() -> None:
    pace = Pace(Limits(at_once=3, per_minute=60))
    assert [pace.allows(b"stolen", 100.0) for _ in range(5)] == [True, True, True, False, False]
    assert pace.allows(b"another", 100.0)
    assert not pace.allows(b"stolen", 100.9)
    assert [pace.allows(b"stolen", 102.0) for _ in range(3)] == [True, True, False]
    assert [pace.allows(b"stolen", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_many_clients_take_no_endless_memory() -> None:
    pace = Pace(Limits(at_once=2, per_minute=60))
    assert [pace.allows(b"busy", 0.0) for _ in range(3)] == [True, True, False]
    for number in range(10_000):
        assert pace.allows(b"%d" % number, 0.0)
    assert len(pace._left) <= 4096
    for number in range(10_000):
        assert pace.allows(b"%d" % number, 100.0)
    assert len(pace._left) <= 4096
