# SPDX-License-Identifier: Apache-2.0
"""Which request is answered by what, and what an error becomes (docs/custodian.md §12)."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import log_reading, renewing
from keyquorum.custodian.admission import Pace, block
from keyquorum.custodian.decision import Desk
from keyquorum.custodian.depositing import Counter
from keyquorum.custodian.enrolling import Reception
from keyquorum.custodian.http_head import Answer, RequestError
from keyquorum.custodian.proving import EvidenceError
from keyquorum.custodian.store_releases import CrowdedError
from keyquorum.custodian.store_schema import WHAT as STORE
from keyquorum.errors import HolderError, KeyquorumError, MalformedError, RefusedError, TamperingError, UsageError
from keyquorum.model import enclave_messages, release_messages, strict_json
from keyquorum.model.release_messages import Denied, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from keyquorum.custodian.admission import Limits
    from keyquorum.custodian.decision import Client, Office
    from keyquorum.custodian.enrolling import Door
    from keyquorum.custodian.group_commit import GroupCommit
    from keyquorum.custodian.http_head import Head
    from keyquorum.custodian.log_reading import Reader
    from keyquorum.custodian.proving import Prover
    from keyquorum.custodian.store import Store

DESKS = 8  # threads that work on the store, in one process
_SOON, _LATER = 5, 60  # seconds: Retry-After


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """All that a process answers with; `open_store` gives each thread a store of its own."""

    open_store: Callable[[], Store]
    office: Office
    writers: GroupCommit
    door: Door
    reader: Reader
    prover: Prover | None = None


class _Desks(threading.local):
    """What one thread works with; opened when it is first needed, and anew after a reload."""

    house: House | None = None
    store: Store | None = None


class Endpoints:
    """The requests of one process. `respond` is called by the connections' threads."""

    def __init__(self, house: House, limits: Limits) -> None:
        self.house = house
        self._pace, self._strangers = Pace(limits), Pace(limits)
        self._desks = _Desks()
        self._pool = ThreadPoolExecutor(DESKS, thread_name_prefix="desk")

    def respond(self, client: Client | None, address: str, head: Head, body: bytes, seconds: float) -> Answer:
        """Answer a request within some seconds. What takes longer may still be done, but nobody gets it."""
        begun = time.monotonic()
        allowed = (
            self._strangers.allows(block(address).encode(), begun)
            if client is None
            else self._pace.allows(client.key, begun)
        )
        if not allowed:
            return _problem(429, "this client asks too often", _LATER)
        future = self._pool.submit(self._answer, client, head, body)
        try:
            return future.result(max(0.001, seconds - (time.monotonic() - begun)))
        except TimeoutError:
            future.cancel()
            return _problem(503, "there is more to do than can be done in time", _SOON)

    def close(self) -> None:
        """Begin nothing new."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, client: Client | None, head: Head, body: bytes) -> Answer:
        try:
            return self._route(client, head, body)
        except KeyquorumError as error:
            return failure(error)

    def _route(self, client: Client | None, head: Head, body: bytes) -> Answer:
        route = _ROUTES.get(head.path)
        if route is None:
            raise RequestError(404, "there is no such path")
        method, act = route
        if head.method != method:
            raise RequestError(405, f"this path takes {method}")
        if client is None and head.path not in _WITHOUT_CERTIFICATE:
            raise RequestError(403, "this path needs a client certificate")
        desks = self._desks
        # A transaction that stands before anything was begun could not be taken back: that store writes no more.
        if desks.house is not self.house or desks.store is None or not desks.store.current or desks.store.whole:
            if desks.store is not None:
                desks.store.close()
            desks.house, desks.store = self.house, self.house.open_store()
        return act(_Visit(self.house, desks.store, client), head, body)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request at one desk."""

    house: House
    store: Store
    client: Client | None

    @property
    def who(self) -> Client:
        """The client that showed a certificate."""
        if self.client is None:
            raise RequestError(403, "this path needs a client certificate")
        return self.client


def _challenge(visit: _Visit, _head: Head, body: bytes) -> Answer:
    wanted = release_messages.parse_challenge_request(body)
    return _signed(Desk(visit.store, visit.house.office, visit.house.writers).challenge(visit.who, wanted))


def _release(visit: _Visit, _head: Head, body: bytes) -> Answer:
    request = release_messages.parse_release_request(body)
    said = Desk(visit.store, visit.house.office, visit.house.writers).release(visit.who, request)
    status = 403 if isinstance(said.answer, Denied) else 202 if isinstance(said.answer, Waiting) else 200
    wait = said.answer.retry_after if isinstance(said.answer, Waiting) else 0
    return _signed(said.envelope, said.receipt, status, wait)


def _attest(visit: _Visit, _head: Head, body: bytes) -> Answer:
    if visit.house.prover is None:
        raise RequestError(404, "this custodian is no enclave that proves what it runs")
    return _signed(visit.house.prover.prove(visit.store, visit.who, enclave_messages.parse_request(body)))


def _deposit(visit: _Visit, _head: Head, body: bytes) -> Answer:
    return _signed(*Counter(visit.store, visit.house.office).deposit(visit.who, body))


def _retire(visit: _Visit, _head: Head, body: bytes) -> Answer:
    return _signed(*Counter(visit.store, visit.house.office).retire(visit.who, body))


def _enrol(visit: _Visit, _head: Head, body: bytes) -> Answer:
    return _signed(Reception(visit.store, visit.house.office, visit.house.door).enrol(body))


def _renew(visit: _Visit, _head: Head, body: bytes) -> Answer:
    return _signed(renewing.renew(visit.store, visit.house.office, visit.house.door, body))


def _log(what: Callable[..., Answer]) -> Callable[[_Visit, Head, bytes], Answer]:
    def act(visit: _Visit, head: Head, body: bytes) -> Answer:
        return what(visit.house.reader, visit.store, visit.who, head.query or body)

    return act


_ENROLL, _RENEW = "/v1/enroll", "/v1/renew"
_WITHOUT_CERTIFICATE = frozenset({_ENROLL, _RENEW})  # who comes there has none yet, or one that is over
_ROUTES: Mapping[str, tuple[str, Callable[[_Visit, Head, bytes], Answer]]] = {
    "/v1/challenge": ("POST", _challenge),
    "/v1/release": ("POST", _release),
    "/v1/attest": ("POST", _attest),
    "/v1/deposit": ("POST", _deposit),
    "/v1/retire": ("POST", _retire),
    _ENROLL: ("POST", _enrol),
    _RENEW: ("POST", _renew),
    "/v1/log/checkpoint": ("GET", _log(log_reading.newest)),
    "/v1/log/consistency": ("GET", _log(log_reading.consistency)),
    "/v1/log/entries": ("GET", _log(log_reading.entries)),
    "/v1/log/receipt": ("GET", _log(log_reading.receipt_of)),
    "/v1/log/proof": ("GET", _log(log_reading.inclusion)),
    "/v1/log/cosigned": ("POST", _log(log_reading.cosigned)),
    "/v1/cosign": ("POST", _log(log_reading.cosign)),
    "/v1/witnessed": ("GET", _log(log_reading.witnessed)),
}


def _signed(envelope: dict[str, Any], receipt: bytes = b"", status: int = 200, retry_after: int = 0) -> Answer:
    return Answer(status=status, body=release_messages.answer_body(envelope, receipt), retry_after=retry_after)


def _problem(status: int, line: str, retry_after: int = 0) -> Answer:
    return Answer(status=status, body=strict_json.serialise({"problem": line}), retry_after=retry_after)


def _own(what: str) -> bool:
    """Say whether an object that is not whole is the custodian's own: its store, or a file."""
    return what == STORE or what.startswith(os.sep)


def failure(error: KeyquorumError) -> Answer:
    """Return what a client gets for an error. What is wrong with the custodian itself is a 503, no client's fault."""
    if isinstance(error, RequestError):
        return _problem(error.status, error.message)
    if isinstance(error, CrowdedError):
        return _problem(429, error.message, _LATER)
    if isinstance(error, RefusedError):
        return _problem(403, error.message)
    if isinstance(error, (TamperingError, MalformedError)) and not _own(error.what):
        return _problem(400, error.message)
    if isinstance(error, UsageError) and not isinstance(error, MalformedError):
        return _problem(409, error.message)
    if isinstance(error, EvidenceError):
        return _problem(503, error.message, _SOON)
    if isinstance(error, HolderError):
        return _problem(503, "the key that deposits are sealed to cannot be used now", _LATER)
    return _problem(503, error.message, _SOON)
