# SPDX-License-Identifier: Apache-2.0
"""One transaction for all who want to write at the same time: one flush of the disk for many answers (docs §8.1).

Whoever comes while nobody writes, writes; whoever comes meanwhile waits and is written with everybody else who waits,
by the first of them. Nobody is told before the whole transaction is on the disk. What one of them did is taken back
by itself if it fails; what keeps the transaction from the disk fails all of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from keyquorum.custodian import receipt
from keyquorum.custodian.store_schema import WHAT
from keyquorum.errors import KeyquorumError, TryAgainError
from keyquorum.linux.turn import turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.custodian.note import NoteSigner
    from keyquorum.custodian.store import Store

MOST = 64  # in one transaction, so that a process does not keep the others from writing for long
_T = TypeVar("_T")
_LOST = f"{WHAT}: this request was lost together with another one, nothing was changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[_T]):
    """What came of something that was written, and the receipt of the entry that was asked for (else empty)."""

    result: _T
    receipt: bytes


class _Ticket(Generic[_T]):
    """What one thread wants written, and what became of it."""

    def __init__(self, act: Callable[[Store], _T], proven: Callable[[_T], int | None] | None = None) -> None:
        self.act, self.proven = act, proven
        self.result: _T
        self.receipt = b""
        self.error: KeyquorumError | None = TryAgainError(_LOST, "ask again")  # until it is known otherwise
        self.over = False
        self._call = threading.Lock()
        self._call.acquire()

    @property
    def entry(self) -> int | None:
        """The entry that a receipt is wanted of, once it is made."""
        return None if self.proven is None else self.proven(self.result)

    def wait(self) -> None:
        """Return when it is over, or when it is this thread's turn to write."""
        self._call.acquire()

    def call(self) -> None:
        """Wake the thread that waits."""
        self._call.release()


class GroupCommit:
    """The threads of one process that write to a store.

    Processes take turns at its `directory`; SQLite's own way would be to look again and again.
    """

    def __init__(self, open_store: Callable[[], Store], directory: str, log: NoteSigner) -> None:
        self._open_store, self._directory, self._log = open_store, directory, log
        self._store: Store | None = None
        self._guard = threading.Lock()
        self._waiting: list[_Ticket[object]] = []
        self._busy = False

    def run(self, act: Callable[[Store], _T]) -> _T:
        """Return what `act` returns, once what it wrote is on the disk; raises what it raises."""
        return self._through(_Ticket(act)).result

    def run_signed(self, act: Callable[[Store], _T], proven: Callable[[_T], int | None]) -> Signed[_T]:
        """Do as `run`, and return the receipt of the entry that `proven` names, if it names one.

        It is against the checkpoint that is signed at the end, one for all who were written together.
        """
        ticket = self._through(_Ticket(act, proven))
        return Signed(result=ticket.result, receipt=ticket.receipt)

    def _through(self, ticket: _Ticket[_T]) -> _Ticket[_T]:
        with self._guard:
            self._waiting.append(ticket)  # type: ignore[arg-type]
            first, self._busy = not self._busy, True
        if not first:
            ticket.wait()
        if not ticket.over:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    def _lead(self, own: _Ticket[_T]) -> None:
        """Write for all who wait, hand over to the first who came meanwhile, and tell the others."""
        with self._guard:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            self._write(batch)
        finally:
            with self._guard:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            if following is not None:
                following.call()
            for ticket in batch:
                ticket.over = True
                if ticket is not own:
                    ticket.call()

    def _write(self, batch: list[_Ticket[object]]) -> None:
        errors: list[KeyquorumError | None] = []
        try:
            store = self._opened()
            with turn(self._directory), store.writing():
                errors.extend(_done(ticket, store) for ticket in batch)
                self._prove(store, [one for one, error in zip(batch, errors, strict=True) if error is None])
        except KeyquorumError as error:
            errors = [error] * len(batch)
        for ticket, found in zip(batch, errors, strict=True):
            ticket.error = found

    def _prove(self, store: Store, done: list[_Ticket[object]]) -> None:
        """Sign a checkpoint for those who want one, and make the receipts while the tree is at hand."""
        signed = [ticket for ticket in done if ticket.proven is not None]
        if not signed:
            return
        note, size = store.sign_checkpoint(self._log), store.size
        for ticket in signed:
            number = ticket.entry
            if number is not None:
                ticket.receipt = receipt_of(store, number, size, note)

    def _opened(self) -> Store:
        if self._store is not None and self._store.whole:  # a transaction that could not be taken back
            self._store.close()
            self._store = None
        if self._store is None or not self._store.current:  # there may be a newer checkpoint to compare it with
            self._store = self._open_store()
        return self._store


def receipt_of(store: Store, number: int, size: int, signed: bytes) -> bytes:
    """Return the receipt for an entry, against a checkpoint of `size` entries signed by the log alone.

    Without cosignatures, which the log may have just got for this very size: an answer has no room for many.
    """
    body, proof = store.receipt_parts(number, size)
    return receipt.serialise(body, number, proof, signed)


def _done(ticket: _Ticket[object], store: Store) -> KeyquorumError | None:
    """Do what a ticket is for, and return what went wrong with it alone; raises what went wrong for all."""
    try:
        ticket.result = ticket.act(store)
    except KeyquorumError as error:
        if not store.whole:
            raise
        return error
    return None
