# SPDX-License-Identifier: Apache-2.0
"""A custodian over TLS on the loopback: what it answers, to whom, and what clients may not do (docs/custodian.md §12)."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.custodian_site import ORIGIN, QUICK, Running, client_certificate, opened, read_all, until
from keyquorum.custodian import authority, receipt, site_settings
from keyquorum.custodian.counters import STATUSES as COUNTED
from keyquorum.custodian.endpoints import Endpoints
from keyquorum.custodian.http_head import Answer
from keyquorum.model import release_messages, strict_json
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import SECRET
from unit.custodian.stores import OPERATOR
from unit.custodian.test_store_faults import full_disk

NEXT = FRAGMENT.with_(epoch=4)
STATUSES = frozenset(COUNTED)
POST = b"POST /v1/challenge HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def custodian(memory_path: str) -> Iterator[Running]:
    with Running(memory_path) as running:
        running.deposit()
        yield running


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_fragment_comes_back_over_the_wire(custodian: Running) -> None:
    answered, request = custodian.release()
    assert answered.status == 200
    wire = custodian.wire()
    payload, proof = wire.signed(answered, release_messages.ANSWER_TYPE)
    assert opened(custodian.machine, payload, request) == SECRET
    log = custodian.site.log_signer(custodian.site.settings()).key
    found = receipt.verify(proof, log).entry
    assert (found.act, found.facts["address"], found.facts["country"]) == ("released", "127.0.0.1", "NO")
    again = wire.ask("/v1/release", release_messages.release_request(request))
    assert again.status == 403
    payload, _ = wire.signed(again, release_messages.ANSWER_TYPE)
    assert strict_json.parse(payload, "", 1 << 16, AssertionError)["check"] == "nonce"  # type: ignore[arg-type]


def test_who_is_let_in(custodian: Running, tmp_path: Path) -> None:
    stranger = client_certificate(str(tmp_path), authority.found("stranger", 1_790_000_000), "web-1")
    assert custodian.counters.total("handshakes_failed") == 0
    with custodian.wire(stranger).connect() as tls:
        assert read_all(tls) == b""
    until(lambda: custodian.counters.total("handshakes_failed") == 1, "an alert, and a count")
    over = client_certificate(str(tmp_path), custodian.site.authority(), "web-1", now=1_000_000_000)
    with custodian.wire(over).connect() as tls:
        assert read_all(tls) == b""
    until(lambda: custodian.counters.total("handshakes_failed") == 2, "an alert, and a count")
    question = release_messages.challenge_request(FRAGMENT)
    for path in ("/v1/challenge", "/v1/release", "/v1/deposit", "/v1/retire", "/v1/cosign"):
        assert custodian.nobody().ask(path, question).status == 403
    unknown = client_certificate(str(tmp_path), custodian.site.authority(), "web-9")
    answered = custodian.wire(unknown).ask("/v1/challenge", question)
    assert (answered.status, answered.problem) == (
        403,
        "no challenge for this client: of no enrolled machine",
    )
    named = client_certificate(str(tmp_path), custodian.site.authority(), "web-1")
    assert custodian.wire(named).ask("/v1/challenge", question).status == 403, "a name is no key"
    with custodian.store() as store:
        store.revoke_machine("web-1", OPERATOR, 1, "stolen")
    assert "is revoked" in custodian.wire().ask("/v1/challenge", question).problem


def test_tls_is_1_3_or_nothing(custodian: Running) -> None:
    old = custodian.wire().context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        custodian.wire().connect(old)
    with custodian.wire().connect() as tls:
        assert tls.version() == "TLSv1.3"
    with socket.create_connection(("127.0.0.1", custodian.port), 30) as plain:
        plain.sendall(POST % 0)
        assert b"HTTP" not in read_all(plain)


BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "no http": (b"hello\r\n\r\n", 400),
    "http/1.0": (b"GET / HTTP/1.0\r\nHost: c\r\n\r\n", 400),
    "no host": (b"GET /v1/witnessed HTTP/1.1\r\n\r\n", 400),
    "no length": (b"POST /v1/challenge HTTP/1.1\r\nHost: c\r\n\r\n", 411),
    "two lengths": (b"POST /v1/challenge HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n", 400),
    "chunks": (b"POST /v1/challenge HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "too long a body": (b"POST /v1/release HTTP/1.1\r\nHost: c\r\nContent-Length: 65537\r\n\r\n", 413),
    "too long a head": (b"GET / HTTP/1.1\r\nHost: c\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
    "an endless head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
    "no such path": (b"GET /etc/passwd HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 404),
    "no such method": (b"PUT / HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\n\r\n", 405),
    "another method": (b"GET /v1/release HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 405),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_what_is_no_request(custodian: Running, name: str) -> None:
    data, expected = BAD_REQUESTS[name]
    assert status(custodian.wire().raw(data)) == expected
    assert custodian.release()[0].status == 200


@pytest.mark.parametrize(
    "path", ["/v1/challenge", "/v1/release", "/v1/deposit", "/v1/retire", "/v1/enroll", "/v1/cosign"]
)
def test_messages_that_are_none(custodian: Running, path: str) -> None:
    found = custodian.site.settings()
    changed = replace(found, auditors={"me": custodian.identity.hash})
    Path(custodian.site.path("custodian.toml")).write_bytes(site_settings.serialise(changed))
    custodian.endpoints.house = custodian.house()
    for junk in (b"", b"{", b"[]", b'{"version":2}', b"\xff" * 100, b"[" * 60_000, b'{"a":' * 1000):
        answered = custodian.wire().ask(path, junk)
        assert answered.status == 400, answered.body
        assert answered.problem


def test_several_requests_of_one_connection(memory_path: str) -> None:
    with Running(memory_path, replace(QUICK, requests=3)) as custodian:
        custodian.deposit()
        connection = custodian.wire().open()
        for number in range(3):
            answered = custodian.wire().ask("/v1/log/checkpoint", over=connection)
            assert answered.status == 200
            assert answered.headers["connection"] == ("keep-alive" if number < 2 else "close")
        connection.close()
        with custodian.wire().connect() as tls:
            tls.sendall(b"GET /v1/log/checkpoint HTTP/1.1\r\nHost: c\r\n\r\n" * 5)
            assert read_all(tls).count(b"HTTP/1.1 200") == 3, "sent in one piece"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /v1/ch", b"HTTP/1.1 408"),
        (POST % 100 + b"{", b"HTTP/1.1 408"),
    ],
)
def test_a_slow_client_is_not_waited_for(memory_path: str, sent: bytes, answer: bytes) -> None:
    with Running(memory_path, replace(QUICK, head=5.0, body=5.0)) as custodian:
        with custodian.wire().connect() as tls:
            tls.sendall(sent)
            said = read_all(tls)
        assert said[: len(b"HTTP/1.1 408")] == answer
        assert custodian.counters.total("too_slow") == 1
        with socket.create_connection(("127.0.0.1", custodian.port), 30) as mute:
            assert read_all(mute) == b"", "not even a handshake"
        assert custodian.counters.total("handshakes_failed") == 1


def test_a_client_that_drips_ends_with_its_head(memory_path: str) -> None:
    """Each byte comes in time, all of them do not."""
    with Running(memory_path, replace(QUICK, head=5.0)) as custodian:
        ended = threading.Event()
        with custodian.wire().connect() as tls:

            def drip() -> None:
                while not ended.wait(0.05):
                    try:
                        tls.sendall(b"x")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                assert status(tls.recv(65536)) == 408
            finally:
                ended.set()
                dripping.join()


def test_no_more_connections_than_there_is_room_for(memory_path: str) -> None:
    with Running(memory_path, replace(QUICK, connections=3)) as custodian:
        held = [custodian.wire().connect() for _ in range(3)]
        for tls in held:
            tls.sendall(b"GET /v1/log/checkpoint HTTP/1.1\r\nHost: c\r\n\r\n")
            assert status(tls.recv(65536)) == 200
        with pytest.raises(OSError):
            custodian.wire().connect()
        assert custodian.counters.total("connections_refused") == 1
        held[0].sendall(b"GET /v1/log/checkpoint HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")
        read_all(held[0])
        for tls in held:
            tls.close()
        until(lambda: not custodian.counters.total("connections_open"), "room")
        assert custodian.wire().ask("/v1/log/checkpoint").status == 200
    with Running(memory_path + "/two", replace(QUICK, for_one=1)) as custodian:
        held = [custodian.wire().connect()]
        with pytest.raises(OSError):
            custodian.wire().connect()
        held[0].close()


def test_who_shows_no_certificate_has_a_pace_too(memory_path: str) -> None:
    """Whoever has a token could otherwise fill the log with enrolments that fail, and anybody keep the desks busy."""
    with Running(memory_path + "/strangers", replace(QUICK, at_once=3, per_minute=1)) as custodian:
        answers = [custodian.nobody().ask("/v1/enroll", b"{}").status for _ in range(5)]
        assert answers == [400, 400, 400, 429, 429]
        assert custodian.wire().ask("/v1/log/checkpoint").status == 200, "who has one is counted by it"


def test_a_reload_cuts_nobody_off(custodian: Running) -> None:
    before = custodian.wire().open()
    assert custodian.wire().ask("/v1/log/checkpoint", over=before).status == 200
    own, key = custodian.site.authority(), authority.new_key()
    certificate = own.issue_server(key.public_key(), [ORIGIN, "127.0.0.1"], 1_790_000_000)
    seen = []
    for certificate_pem, key_pem in (
        (certificate.public_bytes(Encoding.PEM), authority.key_pem(key)),
        (b"junk", b"junk"),
    ):
        Path(custodian.site.path("tls.pem")).write_bytes(certificate_pem)
        Path(custodian.site.path("tls.key")).write_bytes(key_pem)
        try:
            custodian.server.reload(custodian.manner())
        except Exception as error:  # noqa: BLE001 (which one is asserted)
            seen.append(type(error).__name__)
        with custodian.wire().connect() as tls:
            shown = tls.getpeercert(binary_form=True)
        assert shown == certificate.public_bytes(Encoding.DER)
        assert custodian.wire().ask("/v1/log/checkpoint", over=before).status == 200
    assert seen == ["KeyquorumError"]
    before.close()


def test_a_stop_answers_what_is_under_way(custodian: Running) -> None:
    begun, go_on = threading.Event(), threading.Event()
    respond = custodian.endpoints.respond

    def slowly(*words: Any) -> Answer:
        begun.set()
        go_on.wait()
        return respond(*words)

    custodian.server.reload(replace(custodian.manner(), respond=slowly))
    idle = custodian.wire().connect()
    busy = custodian.wire().connect()
    busy.sendall(b"GET /v1/log/checkpoint HTTP/1.1\r\nHost: c\r\n\r\n")
    begun.wait()
    custodian.stop_accepting()
    stopping = threading.Thread(target=custodian.server.stop)
    stopping.start()
    assert idle.recv(1) == b"", "nothing was asked"
    with pytest.raises(OSError):
        custodian.wire().connect()
    go_on.set()
    assert read_all(busy).startswith(b"HTTP/1.1 200")
    stopping.join()
    idle.close()
    busy.close()


def test_a_fault_of_ours_is_one_connections(custodian: Running, capsys: pytest.CaptureFixture[str]) -> None:
    def worse(*_: Any) -> Answer:
        raise ZeroDivisionError("secret")

    before = custodian.manner()
    custodian.server.reload(replace(before, respond=worse))
    with custodian.wire().connect() as tls:
        tls.sendall(b"GET /v1/log/checkpoint HTTP/1.1\r\nHost: c\r\n\r\n")
        assert read_all(tls) == b""
    said = capsys.readouterr().err
    assert "a fault in keyquorum itself: ZeroDivisionError" in said
    assert "secret" not in said
    custodian.server.reload(before)
    assert custodian.release()[0].status == 200


def test_work_that_takes_too_long(custodian: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Endpoints, "_route", lambda *_: go_on.wait())
    custodian.limits = replace(QUICK, work=0.2)
    custodian.server.reload(custodian.manner())
    answered = custodian.wire().ask("/v1/log/checkpoint")
    assert (answered.status, answered.headers["retry-after"]) == (503, "5")
    go_on.set()


def test_a_full_disk_releases_nothing_and_comes_back(custodian: Running) -> None:
    with full_disk(0):
        for _ in range(2):
            answered = custodian.wire().ask("/v1/challenge", release_messages.challenge_request(FRAGMENT))
            assert answered.status == 503
            assert "retry-after" in answered.headers
            assert "cannot be written" in answered.problem
        assert custodian.wire().ask("/v1/log/checkpoint").status == 200, "reading goes on"
    assert custodian.release()[0].status == 200


def test_too_many_challenges(custodian: Running) -> None:
    for _ in range(16):
        custodian.wire().challenge()
    answered = custodian.wire().ask("/v1/challenge", release_messages.challenge_request(FRAGMENT))
    assert (answered.status, answered.headers["retry-after"]) == (429, "60")


def test_a_client_that_asks_all_the_time(memory_path: str) -> None:
    """Each request is an entry of the log: even a machine that was stolen and revoked must not fill the disk."""
    with Running(memory_path, replace(QUICK, at_once=3, per_minute=1)) as custodian:
        with custodian.store() as store:
            store.revoke_machine("web-1", OPERATOR, 1, "stolen")
            size = store.size
        wire, question = custodian.wire(), release_messages.challenge_request(FRAGMENT)
        found = [wire.ask("/v1/challenge", question).status for _ in range(6)]
        assert found == [403, 403, 403, 429, 429, 429]
        with custodian.store() as store:
            assert store.size == size + 3


SHAPES = st.sampled_from(
    [b"", b"GET ", b"POST /v1/release HTTP/1.1\r\nHost: c\r\nContent-Length: ", POST % 20, POST % 3]
)


@given(junk=st.lists(st.tuples(SHAPES, st.binary(max_size=60)), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_is_answered_or_closed(custodian: Running, junk: list[tuple[bytes, bytes]]) -> None:
    """Whatever a client sends, it gets whole answers or none, and none of them is 200."""
    with custodian.nobody().connect() as tls:
        tls.sendall(b"".join(shape + data for shape, data in junk))
        with socket.socket(fileno=os.dup(tls.fileno())) as below:
            below.shutdown(socket.SHUT_WR)  # nothing more comes, so nobody has to wait for more
        said = read_all(tls)
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        assert status(head) in STATUSES - {200, 202, 500}
        length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
        assert len(rest) >= length
        said = rest[length:]
