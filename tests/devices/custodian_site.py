# SPDX-License-Identifier: Apache-2.0
"""A custodian that listens on the loopback, within this process, and clients that may misbehave."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.custodian import authority, counters, server
from keyquorum.custodian.admission import Limits
from keyquorum.custodian.authority import Authority
from keyquorum.custodian.connection import Manner
from keyquorum.custodian.decision import Client, Said, question_of
from keyquorum.custodian.endpoints import Endpoints, House
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.log_reading import Reader
from keyquorum.custodian.proving import Collector
from keyquorum.custodian.server import Server
from keyquorum.custodian.site import Plan, Site
from keyquorum.custodian.site_settings import Address, SiteSettings
from keyquorum.custodian.store import Store
from keyquorum.envelope import dsse
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import TamperingError
from keyquorum.holders.contract import Tuning
from keyquorum.linux import listening
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import deposit_messages, release_messages, strict_json
from keyquorum.model.deposit_messages import DepositRequest
from keyquorum.model.fragment_name import FragmentName
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import FLEET, WebServer, policy, reference, sealed_identity
from unit.custodian.stores import OPERATOR

ORIGIN = "custodian.example"
PATIENCE = 60.0
EVER: dict[str, Any] = {"issued": 0, "expires": 1 << 39}
QUICK = Limits(head=20.0, body=20.0, work=20.0, sending=20.0, silence=30.0, grace=10.0)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


def settings(**changes: Any) -> SiteSettings:
    made = SiteSettings(
        origin=ORIGIN,
        listen=(Address(host="127.0.0.1", port=0),),
        monitor=Address(host="127.0.0.1", port=0),
        workers=2,
        labels={"region": "eu-west", "country": "FR"},
        witnesses=(),
        logs=(),
        auditors={},
        operators={},
        unsafe_without_witnesses=True,
    )
    return replace(made, **changes)


def a_site(directory: str, **changes: Any) -> Site:
    """A custodian's directory, as `init` makes it."""
    made = Site(directory)
    plan = Plan(settings=settings(**changes), names=[ORIGIN, "127.0.0.1"], kept="file", uri="")
    made.make(plan, Actor(role="operator", name="anna"), LocalAnswers(), Tuning())
    return made


@dataclass
class Identity:
    """A TLS client: certificate and key as files."""

    certificate: str
    key: str
    hash: bytes


def client_certificate(directory: str, own: Authority, name: str, now: int = 0) -> Identity:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issued = own.issue_client(public, name, {"country": "NO"}, now or int(time.time()))
    base = os.path.join(directory, f"{name}-{hashlib.sha256(public).hexdigest()[:8]}")
    with open(base + ".pem", "wb") as file:
        file.write(issued.public_bytes(Encoding.PEM))
    with open(base + ".key", "wb") as file:
        file.write(authority.key_pem(private))
    return Identity(base + ".pem", base + ".key", hashlib.sha256(public).digest())


@dataclass
class Answered:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> dict[str, Any]:
        found: dict[str, Any] = strict_json.parse(self.body, "the answer", 1 << 20, TamperingError)
        return found

    @property
    def problem(self) -> str:
        return str(self.table["problem"])


class Wire:
    """A client's view of a custodian at some port."""

    def __init__(self, site: Site, port: int, who: Identity | None) -> None:
        self.site, self.port, self.who = site, port, who
        self.log_key = PublicKey(raw=site.log_signer(site.settings()).key.public)

    def context(self) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.site.path("authority.pem"))
        if self.who is not None:
            made.load_cert_chain(self.who.certificate, self.who.key)
        return made

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        return (context or self.context()).wrap_socket(plain, server_hostname=ORIGIN)

    def raw(self, data: bytes) -> bytes:
        """Send bytes and return everything that comes until the custodian closes."""
        with self.connect() as tls:
            tls.sendall(data)
            return read_all(tls)

    def open(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context(), timeout=30)

    def ask(self, path: str, body: bytes | None = None, over: http.client.HTTPSConnection | None = None) -> Answered:
        connection = over or self.open()
        try:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            return Answered(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            if over is None:
                connection.close()

    def signed(self, answered: Answered, kind: str) -> tuple[bytes, bytes]:
        """Return payload and receipt of a signed answer."""
        envelope, receipt = release_messages.parse_answer_body(answered.body)
        return dsse.verify(dsse.parse(envelope, "the answer"), kind, (self.log_key,)), receipt

    def challenge(self, fragment: FragmentName = FRAGMENT) -> bytes:
        answered = self.ask("/v1/challenge", release_messages.challenge_request(fragment))
        assert answered.status == 200, answered.body
        payload, _ = self.signed(answered, release_messages.CHALLENGE_TYPE)
        return release_messages.parse_challenge(payload, ORIGIN, fragment).nonce


def read_all(tls: socket.socket) -> bytes:
    """Return what comes until the other end closes, or resets the connection."""
    found = b""
    with suppress(ConnectionError, ssl.SSLError):
        while piece := tls.recv(65536):
            found += piece
    return found


class Running:
    """A custodian that serves from a thread of this process, with one machine and one deposit."""

    def __init__(
        self, directory: str, limits: Limits = QUICK, *, host: str = "127.0.0.1", port: int = 0, **changes: Any
    ) -> None:
        self.directory = directory
        self.collector: Collector | None = None  # with one it is an enclave
        self.site = a_site(os.path.join(directory, "site"), **changes)
        self.limits = limits
        self.machine = WebServer(origin=ORIGIN)
        self.identity = client_certificate(directory, self.site.authority(), "web-1")
        self.machine.client = Client(key=self.identity.hash, name="web-1")
        self.sealing = self.site.sealing(ORIGIN, LocalAnswers(), Tuning())
        with self.store() as store:
            store.enrol_machine(self.machine.enrolled, OPERATOR, 1)
            store._database.execute("INSERT INTO owner (machine, key) VALUES (?, ?)", ("web-1", FLEET.public.raw))
        _, self.counters = counters.make(1)
        self.endpoints = Endpoints(self.house(), limits)
        listener = listening.bound(host, port)
        self.port = int(listener.getsockname()[1])
        path = self.site.path
        self.make_context: Callable[[], ssl.SSLContext] = lambda: server.tls_context(
            path("tls.pem"), path("tls.key"), path("clients.pem")
        )
        self.server = Server([listener], self.make_context, self.manner())
        self._read, self._write = os.pipe()
        self._thread = threading.Thread(target=self.server.serve, args=({self._read: lambda: False},))
        self._thread.start()

    def reopen(self) -> None:
        """Open the sealing key again, and read the settings."""
        self.sealing = self.site.sealing(ORIGIN, LocalAnswers(), Tuning())
        self.endpoints.house = self.house()

    def store(self) -> Any:
        return _Opened(self.site)

    def house(self) -> House:
        found = self.site.settings()
        office = self.site.office(found, self.sealing)
        return House(
            open_store=lambda: self.site.open_store(found),
            office=office,
            prover=None if self.collector is None else self.site.prover(office, self.collector),
            writers=self.site.writers(found, office),
            door=self.site.door(),
            reader=Reader(
                witnesses=found.witnesses,
                keep=self.site.keep_newest,
                auditors=frozenset(found.auditors.values()),
                logs={key.name: key for key in found.logs},
                log=self.site.log_signer(found),
                cosigner=self.site.cosigner(found),
                now=lambda: int(time.time()),
            ),
        )

    def manner(self) -> Manner:
        return Manner(
            limits=self.limits,
            counters=self.counters,
            respond=self.endpoints.respond,
            issued=self.site.authority().issued,
        )

    def wire(self, who: Identity | None = None) -> Wire:
        return Wire(self.site, self.port, who or self.identity)

    def nobody(self) -> Wire:
        return Wire(self.site, self.port, None)

    def deposit_body(self, fragment: FragmentName = FRAGMENT, **policies: Any) -> bytes:
        one, other = policy(**EVER, **policies), reference(**EVER)
        asked = DepositRequest(
            custodian=ORIGIN,
            owner=FLEET.public.raw,
            machine="web-1",
            fragment=fragment,
            sealed=sealed_identity(self.sealing, fragment=fragment, origin=ORIGIN),
            policy=hashlib.sha256(one).digest(),
            reference=hashlib.sha256(other).digest(),
        )
        signed = FLEET.sign(deposit_messages.DEPOSIT_TYPE, deposit_messages.deposit_payload(asked))
        tables = [strict_json.parse(data, "", 1 << 16, TamperingError) for data in (one, other)]
        return deposit_messages.deposit_body(signed, *tables)

    def deposit(self, fragment: FragmentName = FRAGMENT, **policies: Any) -> None:
        answered = self.wire().ask("/v1/deposit", self.deposit_body(fragment, **policies))
        assert answered.status == 200, answered.body

    def release(self, wire: Wire | None = None, **changes: Any) -> tuple[Answered, release_messages.ReleaseRequest]:
        wire = wire or self.wire()
        request = self.machine.request(wire.challenge(), **changes)
        return wire.ask("/v1/release", release_messages.release_request(request)), request

    def stop_accepting(self) -> None:
        """What a worker does at SIGTERM, up to the waiting."""
        os.write(self._write, b"x")
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop_accepting()
        self.server.stop()
        self.endpoints.close()
        os.close(self._read)
        os.close(self._write)


class _Opened:
    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> Store:
        self._store = self._site.open_store(self._site.settings())
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


def opened(machine: WebServer, payload: bytes, request: release_messages.ReleaseRequest) -> bytes:
    """What the machine gets out of a payload that was verified."""
    answer = release_messages.parse_answer(payload, question_of(machine.origin, request))
    return machine.opened(Said(answer=answer, envelope={}), request)
