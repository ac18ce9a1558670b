# SPDX-License-Identifier: Apache-2.0
"""A certificate authority for tests, and servers on the loopback that speak TLS by another implementation of the API."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyquorum.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
CUSTODIAN = "eu-1.custodian.example"


class Authority:
    """A root certificate with a P-256 key."""

    def __init__(self, name: str = "custodian CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key()).issuer_name(self._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = builder.sign(self._key, SHA256())
        self.der = self.certificate.public_bytes(Encoding.DER)

    @staticmethod
    def _builder(subject: x509.Name, key: Any, days: int = 30) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 60 * DAY)
            .not_valid_after(NOW + days * DAY)
        )

    def issue(self, name: str, key: Any, *, server: bool, days: int = 30) -> bytes:
        """Return a certificate in DER."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(subject, key.public_key(), days).issuer_name(self._name)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.DER)


class Machine:
    """A client's Ed25519 key, its seed and certificate."""

    def __init__(self, authority: Authority, name: str = "web-1", days: int = 30) -> None:
        self.seed = os.urandom(32)
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.certificate = authority.issue(name, key, server=False, days=days)

    def key(self) -> Secret:
        return Secret.from_view(self.seed)


def server_context(
    authority: Authority, directory: str, *, name: str = CUSTODIAN, days: int = 30, issuer: Authority | None = None
) -> ssl.SSLContext:
    """A server named `name` that asks for certificates of `authority`."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (issuer or authority).issue(name, key, server=True, days=days)
    path = os.path.join(directory, f"{os.urandom(4).hex()}.pem")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(path, "wb") as file:
        file.write(x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.der)
    return context


class Server:
    """Accepts connections on the loopback; `serve` gets each one, after the handshake if there is a context."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        serve: Callable[[Any], None],
        host: str = "127.0.0.1",
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._context, self._serve, self._threads = context, serve, list[threading.Thread]()
        self.host, self.port = host, int(self._listener.getsockname()[1])
        self.accepted = 0
        self.failures: list[str] = []
        self._run(self._accept)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                self._run(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        try:
            if self._context is not None:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self._serve(secured)
            else:
                with connection:
                    self._serve(connection)
        except OSError as error:
            self.failures.append(str(error))
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)
