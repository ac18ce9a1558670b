# SPDX-License-Identifier: Apache-2.0
"""Tokens by which operators let machines and their owners in, and what becomes of them (docs/custodian.md §11.2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian.entry import Actor, Entry, administration
from keyquorum.errors import MalformedError, RefusedError, UsageError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.custodian.store import Machine, Store

TOKEN = 16  # bytes
TOKEN_LIFE = 3600  # seconds
_LONGEST = 64  # characters (RFC 5280, appendix A: ub-common-name and its like)
LABELS = ("region", "country", "operator")
_WHAT = "the token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an operator allows: a machine's name and labels, and the hash of its endorsement key ("" for none)."""

    machine: str
    labels: Mapping[str, str]
    listed_ek: bytes = b""


def _check(offered: Offer) -> None:
    """Refuse now what no certificate could have later: RFC 5280 bounds names, and countries are two letters."""
    texts = {
        "the machine's name": offered.machine,
        **{f"the label {name}": text for name, text in offered.labels.items()},
    }
    for what, text in texts.items():
        if not 0 < len(text) <= _LONGEST or not text.isprintable() or text != text.strip():
            raise MalformedError(what, "", f"needs 1 to {_LONGEST} characters that print")
    country = offered.labels.get("country", "XX")
    if len(country) != 2 or not (country.isascii() and country.isalpha() and country.isupper()):
        raise MalformedError("the label country", "", f"{country!r} is not two letters, as in FR")
    unknown = set(offered.labels) - set(LABELS)
    if unknown:
        raise MalformedError("the labels", "", f"{min(unknown)!r} is none of {', '.join(LABELS)}")


class Enrolments:
    """The part of a store by which machines come in."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def offer(self, token: bytes, offered: Offer, who: Actor, at: int) -> Entry:
        """Keep a token as its hash; raises `UsageError` if the machine's name is taken."""
        if len(token) != TOKEN or len(offered.listed_ek) not in {0, 32}:
            raise MalformedError(_WHAT, "", "has a wrong size")
        _check(offered)
        digest = hashlib.sha256(token).digest()
        with self._store.writing() as database:
            if database.execute("SELECT 1 FROM machine WHERE name = ?", (offered.machine,)).fetchone() is not None:
                raise UsageError(f"machine {offered.machine} has or had this name", "take another name")
            database.execute("DELETE FROM token WHERE expires <= ?", (at - TOKEN_LIFE,))
            labels = strict_json.serialise(dict(offered.labels)).decode()
            database.execute(
                "INSERT INTO token (hash, machine, labels, listed_ek, expires) VALUES (?, ?, ?, ?, ?)",
                (digest, offered.machine, labels, offered.listed_ek, at + TOKEN_LIFE),
            )
            facts = {"token-sha256": digest.hex()} | {name: text for name, text in offered.labels.items() if text}
            return self._store.note(administration("offered-enrolment", who, at, offered.machine, facts=facts))

    def offered(self, token: bytes, at: int) -> Offer:
        """Return what a token is for; raises `RefusedError` for one that is unknown, spent or expired."""
        query = "SELECT machine, labels, listed_ek, expires, spent FROM token WHERE hash = ?"
        with self._store.reading() as database:
            row = database.execute(query, (hashlib.sha256(token).digest(),)).fetchone()
        if row is None or row[4] is not None or at >= row[3]:
            state = "unknown" if row is None else "expired" if row[4] is None else "spent"
            raise RefusedError(f"{_WHAT} is {state}", "an operator makes another: keyquorum custodian enroll-machine")
        fields = Fields.read(row[1].encode(), _WHAT, 4096, MalformedError)
        labels = {name: fields.text(name) for name in LABELS if fields.has(name)}
        return Offer(machine=row[0], labels=labels, listed_ek=row[2])

    def finish(self, token: bytes, machine: Machine, owner: bytes, at: int) -> Entry:
        """Spend the token, enrol the machine and admit its owner (Ed25519 key), all or nothing.

        Raises `RefusedError` if the token was spent meanwhile, `UsageError` if name or key of the machine is taken.
        """
        digest = hashlib.sha256(token).digest()
        who = Actor(role="owner", name=machine.name, key=hashlib.sha256(owner).hexdigest())
        with self._store.writing() as database:
            offered = self.offered(token, at)
            if offered.machine != machine.name:
                raise RefusedError(f"{_WHAT} is for {offered.machine}, not for {machine.name}")
            database.execute("UPDATE token SET spent = ? WHERE hash = ?", (at, digest))
            found = self._store.add_machine(database, machine, who, at)
            database.execute("INSERT INTO owner (machine, key) VALUES (?, ?)", (machine.name, owner))
            facts = {"token-sha256": digest.hex()}
            self._store.note(administration("admitted-owner", who, at, machine.name, facts=facts))
            return found

    def admit(self, machine: str, owner: bytes, who: Actor, at: int) -> Entry:
        """Admit one more owner for a machine, on the word of an operator; raises `UsageError`."""
        if len(owner) != 32:
            raise MalformedError("the owner's key", "", f"has {len(owner)} bytes, not 32")
        with self._store.writing() as database:
            if database.execute("SELECT 1 FROM machine WHERE name = ?", (machine,)).fetchone() is None:
                raise UsageError(f"no machine {machine} is enrolled")
            database.execute("INSERT OR IGNORE INTO owner (machine, key) VALUES (?, ?)", (machine, owner))
            facts = {"identity-sha256": hashlib.sha256(owner).hexdigest()}
            return self._store.note(administration("admitted-owner", who, at, machine, facts=facts))
