# SPDX-License-Identifier: Apache-2.0
"""Nonces, releases and approvals in the store (docs/custodian.md §3, §4, §6, §8).

A fragment leaves the store only as part of an `Answer`, and an answer exists only once its entry is on the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from keyquorum.custodian import entry
from keyquorum.custodian.entry import Actor, Entry
from keyquorum.custodian.store import Deposit, deposited, fragment_key, sha256
from keyquorum.custodian.verdict import DENIED, PENDING, RELEASED, Verdict
from keyquorum.errors import KeyquorumError, MalformedError, TamperingError, TryAgainError, UsageError
from keyquorum.evidence.result import Check, Outcome
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.model.fragment_name import FragmentName

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from keyquorum.custodian.store import Store

    Judge = Callable[["Deposit", "Standing"], Verdict]


class CrowdedError(TryAgainError):
    """A machine has more unanswered challenges than one may have."""


NONCE = 32  # bytes
NONCE_LIFE = 60  # seconds
UNSPENT_FOR_ONE = 16  # challenges of one machine at a time
HOUR = 3600
_MAX_CLOCK = (1 << 63) - 1  # what a column has room for
_KEEP_NONCES = 24 * HOUR  # an expired nonce is called expired for a day, afterwards unknown
_SPEC = "docs/custodian.md §4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who asks for which fragment; `who` is the machine with the TLS key (SHA-256) that the connection showed.

    `facts` go into every entry about the request.
    """

    who: Actor
    fragment: FragmentName
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the store knows that a policy asks for: releases in the hour before, releases ever, who has approved."""

    releases_in_hour: int
    releases: int
    approvals: tuple[bytes, ...]
    pending: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the store has written down, and the sealed identity if it was released (else empty)."""

    entry: Entry
    sealed: bytes
    pending: int | None = None


def _check(name: str, expected: str, actual: str, holds: bool) -> Check:
    outcome = Outcome.PASSED if holds else Outcome.FAILED
    return Check(name=name, spec=_SPEC, expected=expected, actual=actual, outcome=outcome)


class Releases:
    """The part of a store that machines and operators use."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Nonces

    def issue(self, nonce: bytes, ask: Ask, at: int) -> Entry:
        """Remember a nonce as its hash before it is sent; raises `TryAgainError` if the machine has too many."""
        if len(nonce) != NONCE:
            raise MalformedError("the nonce", "", f"has {len(nonce)} bytes, not {NONCE}")
        digest = hashlib.sha256(nonce).digest()
        with self._store.writing() as database:
            database.execute("DELETE FROM nonce WHERE expires < ?", (at - _KEEP_NONCES,))
            query = "SELECT count(*) FROM nonce WHERE machine = ? AND spent IS NULL AND expires > ?"
            (unspent,) = database.execute(query, (ask.who.name, at)).fetchone()
            if unspent >= UNSPENT_FOR_ONE:
                raise CrowdedError(f"{unspent} challenges for {ask.who.name} are unanswered", "wait a minute")
            database.execute(
                "INSERT INTO nonce (volume, set_id, epoch, idx, hash, machine, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*fragment_key(ask.fragment), digest, ask.who.name, at + NONCE_LIFE),
            )
            return self._store.note(_entry(entry.CHALLENGE, "issued", ask, at, facts={"nonce-sha256": digest.hex()}))

    def spend(self, nonce: bytes, ask: Ask, at: int) -> Check:
        """Spend a nonce, whatever becomes of the request, and return how it stood. On the disk before this returns."""
        with self._store.writing() as database:
            found = self.standing(nonce, ask, at)
            digest = hashlib.sha256(nonce).digest()
            database.execute("UPDATE nonce SET spent = ? WHERE hash = ? AND spent IS NULL", (at, digest))
        return found

    def standing(self, nonce: bytes, ask: Ask, at: int) -> Check:
        """Return how a nonce stands; only `spend` makes sure that it stood so for nobody else."""
        query = "SELECT volume, set_id, epoch, idx, machine, expires, spent FROM nonce WHERE hash = ?"
        with self._store.reading() as database:
            row = database.execute(query, (hashlib.sha256(nonce).digest(),)).fetchone()
        if row is None:
            return _check("nonce", "one of this custodian's", "unknown", holds=False)
        *fragment, machine, expires, spent = row
        if machine != ask.who.name:
            return _check("nonce", f"made for {ask.who.name}", f"made for {machine}", holds=False)
        if tuple(fragment) != fragment_key(ask.fragment):
            return _check("nonce", "made for this fragment", "made for another fragment", holds=False)
        if spent is not None:
            return _check("nonce", "unspent", f"spent at {spent}", holds=False)
        if at >= expires:
            return _check("nonce", f"before {expires}", str(at), holds=False)
        return _check("nonce", "unspent and unexpired", "unspent and unexpired", holds=True)

    # Releases

    def look(self, ask: Ask) -> Deposit | None:
        """Return the deposit if the store would hardly refuse anything now; `decide` looks at everything.

        Whether the row is as the log says costs more than it may save, for a custodian whose store was altered.
        """
        with self._store.reading() as database:
            deposit, checks = self._find(database, ask, (), compared=False)
        return None if any(check.outcome is Outcome.FAILED for check in checks) else deposit

    def owner_of(self, deposit: Deposit) -> bytes:
        """Return the key of the owner whose deposit this is, b"" if the owner is not admitted for the machine."""
        query = """SELECT owner.key, volume_epochs.owner FROM volume_epochs, owner
            WHERE volume = ? AND set_id = ? AND machine = ?"""
        with self._store.reading() as database:
            place = (deposit.fragment.volume, deposit.fragment.set_id, deposit.machine)
            rows = database.execute(query, place).fetchall()
        return next((key for key, owner in rows if sha256(key) == owner), b"")

    def last_clock(self, machine: str) -> ClockInfo | None:
        """Return the counters of the machine's last trusted quote."""
        query = "SELECT resets, restarts, clock, safe FROM clock WHERE machine = ?"
        with self._store.reading() as database:
            row = database.execute(query, (machine,)).fetchone()
        if row is None:
            return None
        return ClockInfo(reset_count=row[0], restart_count=row[1], clock=row[2], safe=bool(row[3]))

    def decide(self, ask: Ask, at: int, judge: Judge, before: tuple[Check, ...] = ()) -> Answer:
        """Judge a request and write down what came of it, in one transaction; nothing else runs in between.

        `before` are checks already made, such as that of the nonce; if one failed, nothing else is looked at. An error
        of ours while judging is a denial. Raises only what kept the store from writing.
        """
        with self._store.writing() as database:
            deposit, checks = self._find(database, ask, before)
            if deposit is None or any(check.outcome is Outcome.FAILED for check in checks):
                failed = next(check for check in checks if check.outcome is Outcome.FAILED)
                reason = f"{failed.name}: expected {failed.expected}, found {failed.actual}"
                verdict = Verdict(act=DENIED, reason=reason, checks=())
            else:
                standing = self._standing(database, ask, at)
                try:
                    verdict = judge(deposit, standing)
                except KeyquorumError as problem:
                    if not self._store.whole:  # SQLite took everything back while it was asked: no denial stands alone
                        raise
                    verdict = Verdict(act=DENIED, reason=problem.message, checks=())
                checks += verdict.checks
                if verdict.act == PENDING:
                    return self._wait(database, ask, at, verdict, checks)
            found = self._write(ask, at, verdict, checks)
            released = deposit is not None and found.act == RELEASED  # which an entry that is too large is not
            if released:
                self._close_pending(database, ask, at)
        return Answer(entry=found, sealed=deposit.sealed if deposit is not None and released else b"")

    def _find(
        self, database: sqlite3.Connection, ask: Ask, before: tuple[Check, ...], *, compared: bool = True
    ) -> tuple[Deposit | None, tuple[Check, ...]]:
        """Return the deposit and the checks that the store itself makes, up to the first that failed.

        The row is `compared` with the entry that made it.
        """
        if any(check.outcome is Outcome.FAILED for check in before):
            return None, before
        row = database.execute("SELECT revoked, client_key FROM machine WHERE name = ?", (ask.who.name,)).fetchone()
        if row is None or row[1].hex() != ask.who.key:
            state = "unknown" if row is None else "another key"
        else:
            state = "enrolled" if row[0] is None else "revoked"
        checks = [*before, _check("machine", "enrolled", state, state == "enrolled")]
        if state != "enrolled":
            return None, tuple(checks)
        _, lowest = self._store.epochs(ask.fragment)
        checks.append(_check("epoch", f"at least {lowest}", str(ask.fragment.epoch), ask.fragment.epoch >= lowest))
        row = deposited(database, ask.fragment)
        if ask.fragment.epoch < lowest or row is None:
            checks.append(_check("deposit", "deposited", "not deposited", holds=False))
            return None, tuple(checks)
        holds = row[0] == ask.who.name
        checks.append(_check("deposit", f"for {ask.who.name}", f"for {row[0]}", holds))
        deposit = Deposit(ask.fragment, *row[:4])
        if compared:
            checks.append(self._as_logged(deposit, row[4]))
        return deposit, tuple(checks)

    def _as_logged(self, deposit: Deposit, number: int) -> Check:
        """Compare a row with the entry that made it, which the tree vouches for."""
        facts = deposit.hashes()
        try:
            logged = self._store.log.entry(number)
        except TamperingError as problem:
            return _check("deposit.unchanged", f"as entry {number} says", problem.message, holds=False)
        whose = (logged.act, logged.machine, logged.fragment, dict(logged.facts))
        holds = whose == ("deposited", deposit.machine, deposit.fragment, facts)
        return _check("deposit.unchanged", f"as entry {number} says", "so" if holds else "the row was changed", holds)

    def _standing(self, database: sqlite3.Connection, ask: Ask, at: int) -> Standing:
        fragment = ask.fragment
        query = "SELECT count(*), total(at > ?) FROM release WHERE volume = ? AND set_id = ? AND idx = ?"
        place = (fragment.volume, fragment.set_id, fragment.index)
        ever, hour = database.execute(query, (at - HOUR, *place)).fetchone()
        pending = self._pending(database, ask, at)
        query = "SELECT envelope FROM approval WHERE pending = ? ORDER BY operator"
        rows = () if pending is None else database.execute(query, (pending,))
        envelopes = tuple(bytes(found) for (found,) in rows)
        return Standing(releases_in_hour=int(hour), releases=ever, approvals=envelopes, pending=pending)

    def _pending(self, database: sqlite3.Connection, ask: Ask, at: int) -> int | None:
        query = """SELECT max(number) FROM pending WHERE volume = ? AND set_id = ? AND epoch = ? AND idx = ?
            AND machine = ? AND closed IS NULL AND expires > ?"""
        (number,) = database.execute(query, (*fragment_key(ask.fragment), ask.who.name, at)).fetchone()
        return None if number is None else int(number)

    def _write(self, ask: Ask, at: int, verdict: Verdict, checks: tuple[Check, ...]) -> Entry:
        kind = entry.RELEASE if verdict.act == RELEASED else entry.DECISION
        facts = dict(verdict.facts)
        if verdict.evidence:
            facts["evidence-sha256"] = sha256(verdict.evidence)
        draft = _entry(kind, verdict.act, ask, at, reason=verdict.reason, checks=checks, facts=facts)
        found = self._store.note(draft)
        with self._store.reading() as database:
            if verdict.evidence:
                row = (found.number, verdict.evidence)
                database.execute("INSERT INTO evidence (number, result) VALUES (?, ?)", row)
            if verdict.clock is not None:
                _remember_clock(database, ask.who.name, verdict.clock)
        return found

    # Approvals

    def _wait(
        self, database: sqlite3.Connection, ask: Ask, at: int, verdict: Verdict, checks: tuple[Check, ...]
    ) -> Answer:
        """Write down that a request waits for people; a request that waits already keeps its number."""
        number = self._pending(database, ask, at)
        if number is not None:
            verdict = replace(verdict, facts={**verdict.facts, "pending": str(number)})
        found = self._write(ask, at, verdict, checks)
        if found.act != PENDING:  # what people would have to look at does not fit into an entry
            return Answer(entry=found, sealed=b"")
        if number is None:
            number = found.number
            database.execute(
                """INSERT INTO pending (volume, set_id, epoch, idx, number, machine, expires)
                VALUES (?, ?, ?, ?, ?, ?, ?)""",
                (*fragment_key(ask.fragment), number, ask.who.name, at + verdict.within),
            )
        return Answer(entry=found, sealed=b"", pending=number)

    def _close_pending(self, database: sqlite3.Connection, ask: Ask, at: int) -> None:
        database.execute(
            """UPDATE pending SET closed = ? WHERE volume = ? AND set_id = ? AND epoch = ? AND idx = ?
            AND machine = ? AND closed IS NULL""",
            (at, *fragment_key(ask.fragment), ask.who.name),
        )

    def answer_pending(self, number: int, envelope: bytes, who: Actor, at: int, *, approved: bool) -> Entry:
        """Note an operator's signed answer to a request that waits; a refusal ends it. The signature was checked.

        Raises `UsageError` if no such request waits, or this operator has answered it.
        """
        query = "SELECT volume, set_id, epoch, idx, machine, expires, closed FROM pending WHERE number = ?"
        with self._store.writing() as database:
            row = database.execute(query, (number,)).fetchone()
            if row is None or row[6] is not None or at >= row[5]:
                raise UsageError(f"no request {number} waits for an answer", "keyquorum custodian list")
            taken = "SELECT 1 FROM approval WHERE pending = ? AND operator = ?"
            if database.execute(taken, (number, who.name)).fetchone() is not None:
                raise UsageError(f"{who.name} has answered request {number} already")
            draft = Entry(
                number=0,
                at=at,
                kind=entry.APPROVAL,
                act="approved" if approved else "refused",
                who=who,
                machine=row[4],
                fragment=FragmentName(volume=row[0], set_id=row[1], epoch=row[2], index=row[3]),
                facts={"pending": str(number), "operator-envelope-sha256": sha256(envelope)},
            )
            found = self._store.note(draft)
            if approved:
                database.execute(
                    "INSERT INTO approval (pending, operator, envelope, number) VALUES (?, ?, ?, ?)",
                    (number, who.name, envelope, found.number),
                )
            else:
                database.execute("UPDATE pending SET closed = ? WHERE number = ?", (at, number))
            return found


def _remember_clock(database: sqlite3.Connection, machine: str, seen: ClockInfo) -> None:
    """Keep a trusted quote's counters unless a later quote was faster."""
    database.execute(
        """INSERT INTO clock (machine, resets, restarts, clock, safe) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (machine) DO UPDATE SET resets = excluded.resets, restarts = excluded.restarts,
            clock = excluded.clock, safe = excluded.safe
        WHERE (excluded.resets, excluded.restarts, excluded.clock) > (resets, restarts, clock)""",
        (machine, seen.reset_count, seen.restart_count, min(seen.clock, _MAX_CLOCK), seen.safe),
    )


def _entry(
    kind: str,
    act: str,
    ask: Ask,
    at: int,
    *,
    reason: str = "",
    checks: tuple[Check, ...] = (),
    facts: Mapping[str, str] | None = None,
) -> Entry:
    return Entry(
        number=0,
        at=at,
        kind=kind,
        act=act,
        who=ask.who,
        machine=ask.who.name if ask.who.role == "machine" else "",  # a stranger may have any name
        fragment=ask.fragment,
        reason=reason,
        checks=checks,
        facts={**ask.facts, **(facts or {})},
    )
