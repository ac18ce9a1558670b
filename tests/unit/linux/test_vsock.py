# SPDX-License-Identifier: Apache-2.0
"""Custodians by AF_VSOCK: addresses, listening, and a whole connection, over a stand-in where the kernel has no loopback."""

from __future__ import annotations

import _socket
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyquorum.custodian import site_settings
from keyquorum.errors import KeyquorumError, MalformedError, UnavailableError
from keyquorum.linux import listening, tls_connection
from keyquorum.linux.resolve import Resolver
from keyquorum.linux.tls_connection import Patience
from keyquorum.model import network_address
from keyquorum.model.network_address import NAME, VSOCK, Endpoint
from keyquorum.native.tls import Context
from unit.linux.tls_authority import CUSTODIAN, Authority, Machine, server_context

HOST = Endpoint(host="2", port=8443, kind=VSOCK)


def test_an_address_is_read_as_it_is_written() -> None:
    assert network_address.parse("vsock:2:8443") == HOST
    assert str(HOST) == "vsock:2:8443"
    assert network_address.parse("vsock.example:8443") == Endpoint(host="vsock.example", port=8443, kind=NAME)


@pytest.mark.parametrize(
    "text",
    ["vsock:8443", "vsock::8443", "vsock:2:", "vsock:02:1", "vsock:0:1", "vsock:any:1", "vsock:4294967295:1",
     "vsock:2:4294967295", "vsock:2:0", "vsock:2:1:1", "vsock:-1:1", "vsock:2:1 ", "VSOCK:2:1", "vsock:" + "9" * 40 + ":1"],
)  # fmt: skip
def test_other_texts_are_none(text: str) -> None:
    assert network_address.parse(text) is None


def test_nothing_is_looked_up_for_it() -> None:
    with Resolver() as resolver:
        resolver.ask(HOST)
        target = resolver.take()[0]
    assert (target.family, target.address) == (_socket.AF_VSOCK, (2, 8443))  # type: ignore[union-attr]


def test_where_a_custodian_listens() -> None:
    for text, host in (("vsock:any:8443", "vsock:any"), ("vsock:3:8443", "vsock:3")):
        found = site_settings.address(text)
        assert (found.host, found.port, str(found)) == (host, 8443, text)
    for wrong in ("vsock:8443", "vsock:x:1", "vsock:1:4294967296", "vsock::1"):
        with pytest.raises(MalformedError):
            site_settings.address(wrong)


def test_a_socket_listens_and_says_where() -> None:
    with listening.bound("vsock:any", 40987) as listener:
        assert listening.shown(listener) == "vsock:any:40987"
        with pytest.raises(KeyquorumError, match="cannot listen on vsock any port 40987"):
            listening.bound("vsock:any", 40987)


class Kernel:
    """`_socket`, in which machine 2 is a listener of this process: a socket of AF_VSOCK is then one of AF_UNIX."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.options: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(_socket, name)

    def socket(self, family: int, kind: int) -> Any:
        assert family == _socket.AF_VSOCK
        real, path, options = _socket.socket(_socket.AF_UNIX, kind), self._path, self.options

        def connect(address: tuple[int, int]) -> int:
            assert address == (2, 8443)
            return real.connect_ex(path)

        names = ("fileno", "getsockopt", "recv", "send", "close")
        return SimpleNamespace(
            connect_ex=connect, setsockopt=lambda *words: options.append(words), **{n: getattr(real, n) for n in names}
        )


def test_tls_is_spoken_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, path = Authority(), str(tmp_path / "socket")
    machine, seen = Machine(authority), list[bytes]()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    context = server_context(authority, str(tmp_path))

    def serve() -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as tls:
            seen.append(tls.recv(100))
            tls.sendall(b"welcome")

    thread = threading.Thread(target=serve)
    thread.start()
    kernel = Kernel(path)
    monkeypatch.setattr(tls_connection, "_socket", kernel)
    patience = Patience(deadline=time.monotonic() + 30)
    with machine.key() as key, Context(authority.der, (machine.certificate,), key) as shared:
        connection = tls_connection.connect((HOST,), shared, CUSTODIAN, patience)
    with connection:
        connection.write(b"hello")
        assert connection.read(patience) == b"welcome"
    thread.join()
    listener.close()
    assert seen == [b"hello"]
    assert kernel.options == [], "TCP's options are not for it"


def test_a_machine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tls_connection, "_socket", Kernel(str(tmp_path / "nothing")))
    patience = Patience(deadline=time.monotonic() + 30)
    with Context(Authority().der) as shared, pytest.raises(UnavailableError, match="vsock:2:8443: no such file"):
        tls_connection.connect((HOST,), shared, CUSTODIAN, patience)
