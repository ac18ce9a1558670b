# SPDX-License-Identifier: Apache-2.0
"""A custodian's own directory, store and decisions behind a plain loop of sockets, for the machine's side.

What is decided, recorded, sealed and signed is the custodian's real code; only its server is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
import time
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509

from devices.holder_tasks import Given
from keyquorum.custodian import authority, renewing
from keyquorum.custodian.decision import Client
from keyquorum.custodian.depositing import Counter
from keyquorum.custodian.enrolling import Reception
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.sealing_key import FILE
from keyquorum.custodian.site import Plan, Site
from keyquorum.custodian.site_settings import Address, SiteSettings
from keyquorum.custodian.store_enrolment import Enrolments, Offer
from keyquorum.errors import KeyquorumError
from keyquorum.holders.contract import Tuning
from keyquorum.model import invitation, network_address, release_messages
from unit.custodian.offices import a_desk
from unit.linux.tls_authority import CUSTODIAN, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.model.invitation import Invitation

OPERATOR = Actor(role="operator", name="olga", key="0" * 64)
TOKEN = bytes(range(16))


class Core:
    """One custodian. `listed` is the SHA-256 of the endorsement key that its operator lets in."""

    def __init__(self, directory: str, listed: bytes, machine: str = "web-1") -> None:
        self.site, self._machine = Site(os.path.join(directory, "custodian")), machine
        settings = SiteSettings(
            origin=CUSTODIAN,
            listen=(Address(host="127.0.0.1", port=1),),
            monitor=None,
            workers=1,
            labels={"country": "FR"},
            witnesses=(),
            logs=(),
            auditors={},
            operators={},
            unsafe_without_witnesses=True,
        )
        self.site.make(Plan(settings=settings, names=(CUSTODIAN,), kept=FILE, uri=""), OPERATOR, Given(), Tuning())
        self._settings = settings
        with contextlib.closing(self.site.open_store(settings)) as store:
            offer = Offer(machine=machine, labels={"country": "NO"}, listed_ek=listed)
            Enrolments(store).offer(TOKEN, offer, OPERATOR, int(time.time()))
        self.paths: list[str] = []
        self.change: Callable[[str, int, bytes], tuple[int, bytes]] = lambda _path, status, body: (status, body)
        self.server = Server(self._context(), self._serve)

    def _office(self) -> _Office:
        """Open the sealing key anew: what runs a command line in this process wipes every secret at its end."""
        return _Office(self.site, self._settings)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.site.path("tls.pem"), self.site.path("tls.key"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.site.path("clients.pem"))
        return context

    def invitation(self, **changes: Any) -> Invitation:
        endpoint = network_address.parse(self.server.address)
        assert endpoint is not None
        return invitation.parse(self.invitation_file(), "x").with_(addresses=(endpoint,)).with_(**changes)

    def invitation_file(self) -> bytes:
        """What `custodian enroll-machine --json` prints."""
        return json.dumps(
            {
                "version": 1,
                "command": "custodian enroll-machine",
                "machine": self._machine,
                "custodian": CUSTODIAN,
                "token": TOKEN.hex(),
                "expires": int(time.time()) + 3600,
                "log_key": str(self.site.log_signer(self._settings).key),
                "authority": open_text(self.site.path("authority.pem")),
                "exit_code": 0,
            }
        ).encode()

    def _serve(self, connection: Any) -> None:
        client, held = self._client(connection.getpeercert(binary_form=True)), b""
        with (
            contextlib.closing(self.site.open_store(self._settings)) as store,
            contextlib.closing(self._office()) as own,
        ):
            while True:
                while b"\r\n\r\n" not in held:
                    data = connection.recv(65536)
                    if not data:
                        return
                    held += data
                head, _, held = held.partition(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(held) < size:
                    held += connection.recv(65536)
                body, held = held[:size], held[size:]
                path = head.split(b" ")[1].decode()
                self.paths.append(path)
                status, answer = self.change(path, *self._answer((store, own.made), client, path, body))
                line = f"HTTP/1.1 {status} x\r\nContent-Length: {len(answer)}\r\n\r\n"
                connection.sendall(line.encode() + answer)

    def _client(self, data: bytes | None) -> Client | None:
        if data is None:
            return None
        certificate = x509.load_der_x509_certificate(data)
        name, labels = authority.labels_of(certificate)
        key = hashlib.sha256(authority.key_der(certificate)).digest()
        return Client(key=key, name=name, ours=self.site.authority().issued(certificate), labels=labels)

    def _answer(self, inside: tuple[Any, Any], client: Client | None, path: str, body: bytes) -> tuple[int, bytes]:
        (store, office), receipt = inside, b""
        try:
            if path == "/v1/enroll":
                envelope = Reception(store, office, self.site.door()).enrol(body)
            elif path == "/v1/renew":
                envelope = renewing.renew(store, office, self.site.door(), body)
            elif client is None:
                return 403, b'{"problem":"no certificate"}'
            elif path == "/v1/deposit":
                envelope, receipt = Counter(store, office).deposit(client, body)
            elif path == "/v1/challenge":
                wanted = release_messages.parse_challenge_request(body)
                envelope = a_desk(store, office).challenge(client, wanted)
            else:
                said = a_desk(store, office).release(client, release_messages.parse_release_request(body))
                status = {"Released": 200, "Waiting": 202, "Denied": 403}[type(said.answer).__name__]
                return status, release_messages.answer_body(said.envelope, said.receipt)
        except KeyquorumError as error:
            return 403, json.dumps({"problem": error.message[:200]}).encode()
        return 200, release_messages.answer_body(envelope, receipt)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()


class _Office:
    """What a custodian answers with, for one connection."""

    def __init__(self, site: Site, settings: SiteSettings) -> None:
        self._sealing = site.sealing(CUSTODIAN, Given(), Tuning())
        self.made = site.office(settings, self._sealing)

    def close(self) -> None:
        self._sealing.wipe()


def open_text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
