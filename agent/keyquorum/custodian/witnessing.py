# SPDX-License-Identifier: Apache-2.0
"""Asking one's own witnesses to cosign the log, now and then, while serving (docs/custodian.md §12.2).

Nobody waits for it: it is a chore of one worker, each question is bounded in time and size, and what a witness says is
believed by its signature only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum import speech
from keyquorum.custodian import checkpoint, entry, note
from keyquorum.custodian.log_reading import hashes_table
from keyquorum.custodian.peer import AnsweredError
from keyquorum.custodian.store import MOST_ENTRIES
from keyquorum.errors import KeyquorumError, TamperingError, UnavailableError
from keyquorum.linux import atomic_file
from keyquorum.linux.turn import turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.note import VerifierKey
    from keyquorum.custodian.peer import Peer
    from keyquorum.custodian.site import Site
    from keyquorum.custodian.site_settings import SiteSettings
    from keyquorum.custodian.store import Store

_NONE = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round knows: the log's key, its witnesses, and the peers to ask by the witnesses' names."""

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...]
    peers: Mapping[str, Peer]

    @classmethod
    def of(cls, site: Site, settings: SiteSettings) -> Round:
        """Return it for a custodian's directory."""
        return cls(
            log=site.log_signer(settings).key,
            witnesses=settings.witnesses,
            peers={name: site.peer(at.address, at.name, site.path(at.authority)) for name, at in settings.ask.items()},
        )


def ask(site: Site, settings: SiteSettings, store: Store) -> tuple[str, ...]:
    """Have every witness that can be asked cosign the log as it is now; return the names of those that did.

    A witness that is not there, or says something else, is told and costs the others nothing. What one has seen that
    has more entries than the store is kept: whoever opens the store from then on is told that it is an old copy.
    """
    around = Round.of(site, settings)
    if not around.peers:
        return ()
    found = _without_news(site, around, store)
    if found is None:
        with turn(site.directory):  # as whoever answers machines takes it (`group_commit`)
            signed = store.sign_checkpoint(site.log_signer(settings))
        found = checkpoint.verify(signed, around.log, around.witnesses)
    gained = []
    for witness in around.witnesses:
        peer = around.peers.get(witness.name)
        if peer is None or witness.name in found.witnesses:
            continue
        try:
            found = _cosigned(peer, witness, found, around, (site, store))
            gained.append(witness.name)
        except KeyquorumError as problem:
            speech.warn(f"witness {witness.name}: {problem.message}")
    if gained:
        with turn(site.directory):
            store.take_cosigned(found)
        site.keep_newest(found.signed)
    return tuple(gained)


def newest(site: Site, settings: SiteSettings) -> None:
    """Keep the newest checkpoint of our log that any witness has: without one nothing is compared, nor released.

    A witness that is not there, or has none, is told; as long as one answers, the store can be compared.
    """
    around = Round.of(site, settings)
    for witness in around.witnesses:
        peer = around.peers.get(witness.name)
        if peer is None:
            continue
        try:
            site.keep_newest(_seen(peer, witness, around).signed)
        except KeyquorumError as problem:
            speech.warn(f"witness {witness.name}: {problem.message}")


def _seen(peer: Peer, witness: VerifierKey, around: Round) -> Verified:
    """Return what a witness cosigned last; raises `KeyquorumError`."""
    return checkpoint.verify(peer.ask(f"/v1/witnessed?origin={around.log.name}"), around.log, (witness,), 1)


def _without_news(site: Site, around: Round, store: Store) -> Verified | None:
    """Return the newest checkpoint that witnesses have if nothing worth a newer one happened since, else None.

    Entries that only say what was cosigned for others are nothing: two custodians that are each other's witnesses
    would have news for each other for ever.
    """
    kept = atomic_file.read(site.path("newest.note"), note.MAX_NOTE)
    if not kept:
        return None
    seen = checkpoint.verify(kept, around.log, around.witnesses)
    since = store.entries(seen.checkpoint.size)  # MOST_ENTRIES at most: what comes after so many is not seen here
    news = len(since) >= MOST_ENTRIES or any(entry.parse(body).act != "cosigned" for body in since)
    return None if news else seen


def _cosigned(peer: Peer, witness: VerifierKey, ours: Verified, around: Round, kept: tuple[Site, Store]) -> Verified:
    """Return the checkpoint with one more cosignature; raises `KeyquorumError` if this witness gives none."""
    site, store = kept
    old, new = 0, ours.checkpoint.size
    try:
        seen = _seen(peer, witness, around)
        old = seen.checkpoint.size
        if old > new:
            site.keep_newest(seen.signed)
            if old <= store.size:
                raise UnavailableError(f"has cosigned {old} entries already, more than the {new} of this round")
            raise TamperingError(
                "the log", "", f"has {store.size} entries, and this witness has seen {old}: an old copy"
            )
    except AnsweredError as said:
        if said.status != _NONE:
            raise
    proof = [] if old in {0, new} else store.consistency_proof(old, new)
    body = hashes_table(proof, origin=around.log.name, checkpoint=ours.signed)
    found = checkpoint.verify(peer.ask("/v1/cosign", body), around.log, around.witnesses)
    if found.checkpoint != ours.checkpoint or not {*ours.witnesses, witness.name} <= found.witnesses.keys():
        raise TamperingError("the answer", "checkpoint", "is not ours with its cosignature")
    return found
