# SPDX-License-Identifier: Apache-2.0
"""Connections to a custodian over real TLS on the loopback: who is believed, who is not, and what silence costs."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyquorum.errors import KeyquorumError, UnavailableError
from keyquorum.linux import tls_connection
from keyquorum.linux.tls_connection import Connection, Patience, connect
from keyquorum.model import network_address
from keyquorum.native.tls import Context, Session
from unit.linux.tls_authority import CUSTODIAN, Authority, Machine, Server, server_context
from unit.unlock.scene import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyquorum.model.network_address import Endpoint


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def machine(authority: Authority) -> Machine:
    return Machine(authority)


@pytest.fixture
def context(authority: Authority, machine: Machine) -> Iterator[Context]:
    with machine.key() as key, Context(authority.der, (machine.certificate,), key) as made:
        yield made


def echo(connection: Any) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


def reached(
    context: Context, *addresses: str, seconds: float = 10.0, server: str = CUSTODIAN, cancel: int = -1
) -> Connection:
    return connect(
        tuple(endpoint(text) for text in addresses),
        context,
        server,
        Patience(deadline=time.monotonic() + seconds, cancel=cancel),
    )


def endpoint(text: str) -> Endpoint:
    found = network_address.parse(text)
    assert found is not None
    return found


def soon() -> Patience:
    return Patience(deadline=time.monotonic() + 10)


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def read_all(connection: Connection, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += connection.read(soon())
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_sent_comes_through(host: str, authority: Authority, context: Context, tmp_path: Any) -> None:
    sent = os.urandom(200_000)
    with (
        Server(server_context(authority, str(tmp_path)), echo, host) as server,
        reached(context, server.address) as made,
    ):
        made.write(sent)
        assert read_all(made, len(sent)) == sent


def test_the_server_sees_the_machines_certificate_and_tls_1_3(
    authority: Authority, machine: Machine, context: Context, tmp_path: Any
) -> None:
    seen: list[Any] = []

    def look(connection: ssl.SSLSocket) -> None:
        seen.extend((connection.getpeercert(binary_form=True), connection.version()))
        connection.sendall(b"!")
        connection.recv(1)

    with Server(server_context(authority, str(tmp_path)), look) as server, reached(context, server.address) as made:
        assert made.read(soon()) == b"!"
    assert seen == [machine.certificate, "TLSv1.3"]


def test_the_key_of_the_server_is_known(authority: Authority, context: Context, tmp_path: Any) -> None:
    """As the server shows it, whoever that is: what an enclave's evidence is bound to."""
    made = server_context(authority, str(tmp_path))
    (pem,) = [path for path in os.listdir(tmp_path) if path.endswith(".pem")]
    own = x509.load_pem_x509_certificate((tmp_path / pem).read_bytes()).public_key()
    with Server(made, echo) as server, reached(context, server.address) as found:
        assert found.peer_key() == own.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_there_is_no_key_before_a_handshake(context: Context) -> None:
    session = Session(context, CUSTODIAN)
    with pytest.raises(UnavailableError, match="no certificate"):
        session.peer_key()
    session.close()


def test_a_name_is_resolved(authority: Authority, context: Context, tmp_path: Any) -> None:
    with (
        Server(server_context(authority, str(tmp_path)), echo) as server,
        reached(context, f"localhost:{server.port}") as made,
    ):
        made.write(b"x")
        assert made.read(soon()) == b"x"


def test_a_name_without_address_is_said(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_asked: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("_socket.getaddrinfo", nobody)
    with pytest.raises(UnavailableError, match=r"nowhere\.invalid:1: "):
        reached(context, "nowhere.invalid:1")


def refusal(context: Context, server: Server, name: str = CUSTODIAN) -> str:
    with pytest.raises(UnavailableError) as refused:
        reached(context, server.address, server=name)
    return str(refused.value)


def test_a_server_of_another_authority_is_not_believed(authority: Authority, context: Context, tmp_path: Any) -> None:
    with Server(server_context(authority, str(tmp_path), issuer=Authority("custodian CA")), echo) as server:
        assert "certificate fails" in refusal(context, server)


def test_a_server_with_another_name_is_not_believed(authority: Authority, context: Context, tmp_path: Any) -> None:
    with Server(server_context(authority, str(tmp_path), name="eu-2.custodian.example"), echo) as server:
        assert "hostname mismatch" in refusal(context, server).lower()


def test_an_expired_server_is_not_believed(authority: Authority, context: Context, tmp_path: Any) -> None:
    with Server(server_context(authority, str(tmp_path), days=-1), echo) as server:
        assert "certificate has expired" in refusal(context, server)


def test_a_machines_certificate_makes_no_custodian(authority: Authority, context: Context, tmp_path: Any) -> None:
    client, path = Machine(authority, CUSTODIAN), tmp_path / "client.pem"
    key = Ed25519PrivateKey.from_private_bytes(client.seed)
    path.write_bytes(
        x509.load_der_x509_certificate(client.certificate).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    only = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    only.load_cert_chain(path)
    with Server(only, echo) as server:
        assert "unsuitable certificate purpose" in refusal(context, server).lower()


def test_tls_1_2_is_refused(authority: Authority, context: Context, tmp_path: Any) -> None:
    old = server_context(authority, str(tmp_path))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server(old, echo) as server:
        assert "ends the TLS connection" in refusal(context, server)


def test_no_tls_at_all_is_refused(context: Context) -> None:
    with Server(None, lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert "ends the TLS connection" in refusal(context, server)


def test_a_machine_that_the_custodian_does_not_know_is_told(authority: Authority, tmp_path: Any) -> None:
    stranger = Machine(Authority("another CA"))
    with (
        stranger.key() as key,
        Context(authority.der, (stranger.certificate,), key) as context,
        Server(server_context(authority, str(tmp_path)), echo) as server,
        reached(context, server.address) as made,
        pytest.raises(UnavailableError, match="alert"),
    ):
        made.read(soon())


def test_a_key_of_another_certificate_is_refused(authority: Authority, machine: Machine) -> None:
    with Machine(authority).key() as key, pytest.raises(KeyquorumError, match="not of its TLS key"):
        Context(authority.der, (machine.certificate,), key)


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", b"x" * 100, b"\x30" * 9000])
def test_what_is_no_certificate(junk: bytes, authority: Authority, machine: Machine) -> None:
    with machine.key() as key:
        with pytest.raises(KeyquorumError, match="is no certificate"):
            Context(junk, (machine.certificate,), key)
        with pytest.raises(KeyquorumError, match="is no certificate"):
            Context(authority.der, (junk,), key)
        with pytest.raises(KeyquorumError, match="is no certificate"):
            Context(authority.der + b"\x00", (machine.certificate,), key)


def wait_for_the_end(connection: Any) -> None:
    connection.recv(100_000)
    connection.recv(100_000)


def test_the_first_that_proves_itself_wins(authority: Authority, context: Context, tmp_path: Any) -> None:
    """One refuses, one says nothing, one is somebody else: the fourth is used and the silent one not waited for."""
    other = server_context(authority, str(tmp_path), issuer=Authority())
    with (
        Server(None, wait_for_the_end) as silent,
        Server(other, echo) as impostor,
        Server(server_context(authority, str(tmp_path)), echo, "::1") as true,
        reached(context, closed_port(), silent.address, impostor.address, true.address) as made,
    ):
        assert str(made.target.endpoint) == true.address
        made.write(b"x")
        assert made.read(soon()) == b"x"


def test_each_address_is_named_with_its_fault(authority: Authority, context: Context, tmp_path: Any) -> None:
    other = server_context(authority, str(tmp_path), issuer=Authority())
    port = closed_port()
    with Server(other, echo) as impostor, pytest.raises(UnavailableError) as failed:
        reached(context, port, impostor.address)
    assert f"{port}: connection refused" in str(failed.value)
    assert f"{impostor.address}: who answers is not {CUSTODIAN}" in str(failed.value)


def test_silence_ends_at_the_deadline_and_is_named(context: Context) -> None:
    with Server(None, wait_for_the_end) as silent, pytest.raises(UnavailableError, match="no answer") as failed:
        reached(context, silent.address, seconds=0.6)
    assert silent.address in str(failed.value)


@pytest.mark.parametrize(("seconds", "given"), [(30.0, 10), (3.0, 2)])
def test_an_address_is_given_up_after_a_third_of_the_time(
    seconds: float, given: int, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But never before the least; so whoever may take longer, on a slow machine, may take longer to connect."""
    monkeypatch.setattr(tls_connection, "_CONNECT", 2.0)
    clock = [time.monotonic()]

    def nothing(_poll: select.poll, until: float) -> dict[int, int]:
        clock.append(until)
        return {}

    monkeypatch.setattr(tls_connection, "ready", nothing)
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    with Server(None, wait_for_the_end) as silent, pytest.raises(UnavailableError, match="cannot be reached") as failed:
        reached(context, silent.address, seconds=seconds)
    assert f"no answer in {given} s" in str(failed.value)


def test_silence_after_the_handshake_ends_too(authority: Authority, context: Context, tmp_path: Any) -> None:
    with (
        Server(server_context(authority, str(tmp_path)), wait_for_the_end) as server,
        reached(context, server.address) as made,
        pytest.raises(TimeoutError),
    ):
        made.read(Patience(deadline=time.monotonic() + 0.3))


def test_words_without_end_do_not_outlast_the_deadline() -> None:
    """Whoever keeps a descriptor readable, with records that have nothing in them, is not waited for any longer."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"x")
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        with pytest.raises(TimeoutError):
            Patience(deadline=time.monotonic() - 0.1).wait(poll, time.monotonic() + 1)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_goodbye_instead_of_a_handshake_wins_no_race(authority: Authority, context: Context, tmp_path: Any) -> None:
    """A close_notify in plaintext ends a handshake; nobody has proven anything by it."""

    def say_goodbye(connection: Any) -> None:
        connection.recv(4096)
        connection.sendall(bytes.fromhex("15030300020100"))
        wait_for_the_end(connection)

    with Server(None, say_goodbye) as rude, pytest.raises(UnavailableError, match="ended the handshake"):
        reached(context, rude.address)
    with (
        Server(None, say_goodbye) as rude,
        Server(server_context(authority, str(tmp_path)), echo) as server,
        reached(context, rude.address, server.address) as made,
    ):
        made.write(b"x")
        assert made.read(soon()) == b"x"


def read_until(connection: Connection, cancel: int) -> None:
    connection.read(Patience(deadline=time.monotonic() + 600, cancel=cancel))


def called_off(work: Callable[[int], None]) -> None:
    """Call `work` off from another thread while it waits."""
    descriptor, other = os.pipe()
    threading.Timer(0.2, os.close, (other,)).start()
    try:
        with pytest.raises(UnavailableError, match="called off"):
            work(descriptor)
    finally:
        os.close(descriptor)


def test_connecting_can_be_called_off(context: Context) -> None:
    with Server(None, wait_for_the_end) as silent:
        called_off(lambda cancel: reached(context, silent.address, seconds=600, cancel=cancel).close())


def test_waiting_for_an_answer_can_be_called_off(authority: Authority, context: Context, tmp_path: Any) -> None:
    with (
        Server(server_context(authority, str(tmp_path)), wait_for_the_end) as server,
        reached(context, server.address) as made,
    ):
        called_off(lambda cancel: read_until(made, cancel))


def test_an_end_in_the_middle_is_unavailable(authority: Authority, context: Context, tmp_path: Any) -> None:
    """Without a goodbye of TLS an answer may have been cut by anybody."""

    def cut(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"half")
        raw = socket.socket(fileno=os.dup(connection.fileno()))
        raw.shutdown(socket.SHUT_RDWR)
        raw.close()

    with (
        Server(server_context(authority, str(tmp_path)), cut) as server,
        reached(context, server.address) as made,
    ):
        assert made.read(soon()) == b"half"
        with pytest.raises(UnavailableError, match=r"closed by the other end|connection reset"):
            made.read(soon())


def test_nothing_is_left(authority: Authority, machine: Machine, tmp_path: Any) -> None:
    before, descriptors = free_memory(), len(os.listdir("/proc/self/fd"))
    with Server(server_context(authority, str(tmp_path)), echo) as server:
        for _ in range(5):
            with machine.key() as key, Context(authority.der, (machine.certificate,), key) as context:
                reached(context, closed_port(), server.address).close()
    assert free_memory() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_who_never_stops_sending_is_not_listened_to_for_ever() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"more")
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    now = time.monotonic()
    assert Patience(deadline=now + 60).wait(poll, now + 60) == {reading: select.POLLIN}
    with pytest.raises(TimeoutError):
        Patience(deadline=now).wait(poll, now + 60)
    os.close(reading)
    os.close(writing)
