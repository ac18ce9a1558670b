# SPDX-License-Identifier: Apache-2.0
"""A custodian's directory: what is in it, how it is made, and how a process opens it (docs/custodian.md §12.1)."""

from __future__ import annotations

import hashlib
import os
import time
import zoneinfo
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.custodian import authority, checkpoint, note, sealing_key, site_settings, store
from keyquorum.custodian.appraiser import ASKING, Appraiser
from keyquorum.custodian.decision import Office
from keyquorum.custodian.enrolling import Door
from keyquorum.custodian.group_commit import GroupCommit
from keyquorum.custodian.note import NoteSigner
from keyquorum.custodian.peer import Peer
from keyquorum.custodian.proving import Prover
from keyquorum.custodian.sealing_key import Surroundings
from keyquorum.envelope.dsse import PublicKey
from keyquorum.envelope.signing import Owner
from keyquorum.errors import KeyquorumError, MalformedError, UsageError
from keyquorum.evidence import certificate
from keyquorum.linux import atomic_file, owner_key
from keyquorum.linux.turn import turn
from keyquorum.model.renewal_messages import due

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyquorum.custodian.authority import Authority
    from keyquorum.custodian.entry import Actor
    from keyquorum.custodian.proving import Collector
    from keyquorum.custodian.sealing_key import SealingKey
    from keyquorum.custodian.site_settings import Address, SiteSettings
    from keyquorum.custodian.store import Store
    from keyquorum.holders.contract import Answers, Tuning

DIRECTORY = "/var/lib/keyquorum-custodian"
_MAX_PEM = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `init` is told: the settings, names of the server's certificate, where the sealing key is to be kept."""

    settings: SiteSettings
    names: Sequence[str]
    kept: str
    uri: str


class Site:
    """One custodian's directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, name: str) -> str:
        """Return the path of one of the files."""
        return os.path.join(self.directory, name)

    def _read(self, name: str) -> bytes:
        path = self.path(name)
        data = atomic_file.read(path, _MAX_PEM)
        if not data:
            raise UsageError(f"{path} is missing or empty", "make a custodian: keyquorum custodian init")
        return data

    def settings(self) -> SiteSettings:
        """Read the settings."""
        return site_settings.parse(self._read("custodian.toml"), self.path("custodian.toml"))

    def open_store(self, settings: SiteSettings) -> Store:
        """Open the store; it writes only once it was compared, or if the settings say not to (docs §8.3)."""
        found = self.open_for_reading(settings)
        try:
            newest = atomic_file.read(self.path("newest.note"), note.MAX_NOTE)
            if newest:
                needed = 1 if settings.witnesses else 0
                log = self.log_signer(settings).key
                found.prove_current(checkpoint.verify(newest, log, settings.witnesses, needed))
            elif settings.unsafe_without_witnesses:
                found.unsafe_without_witnesses()
        except KeyquorumError:
            found.close()
            raise
        return found

    def open_for_reading(self, settings: SiteSettings) -> Store:
        """Open the store without comparing it: it answers questions, also when it is an old copy."""
        found = store.open_store(self.path("custodian.db"))
        if found.origin != settings.origin:
            found.close()
            raise MalformedError(self.path("custodian.toml"), "origin", f"the store is that of {found.origin}")
        return found

    def _private(self, name: str) -> Ed25519PrivateKey:
        try:
            return owner_key.load_private(self.path(name))
        except FileNotFoundError:
            raise UsageError(f"{self.path(name)} is missing", "make a custodian: keyquorum custodian init") from None

    def log_signer(self, settings: SiteSettings) -> NoteSigner:
        """Return who signs checkpoints of this custodian's log."""
        return NoteSigner(settings.origin, note.ED25519, self._private("signing.key"))

    def cosigner(self, settings: SiteSettings) -> NoteSigner:
        """Return who cosigns others' checkpoints."""
        return NoteSigner(settings.origin, note.COSIGNATURE, self._private("witness.key"))

    def authority(self) -> Authority:
        """Return the authority that certifies machines."""
        return authority.load(self._read("authority.key"), self._read("authority.pem"), self.path("authority.pem"))

    def certificate_expires(self) -> dict[str, int]:
        """Return until when the certificates of server, client and authority are valid, in seconds since 1970."""
        return {name: int(self._certificate(name).ends.timestamp()) for name in ("tls", "client", "authority")}

    def _certificate(self, name: str) -> certificate.Certificate:
        return certificate.load_bundle(self._read(f"{name}.pem"), self.path(f"{name}.pem"))[0]

    def renew(self, now: int, *, early: bool = False) -> list[str]:
        """Renew those own certificates of server and client that are due, with their keys and names; say which.

        With `early` it is time whenever somebody says so. One that another authority issued is left alone.
        """
        own, renewed = self.authority(), []
        for name in ("tls", "client"):
            old = self._certificate(name)
            ends = int(old.ends.timestamp())
            if not own.issued(old.parsed) or not (early or due(int(old.starts.timestamp()), ends, now)):
                continue
            made = own.reissue(old.parsed, now)
            chain = made.public_bytes(Encoding.PEM)
            if name == "tls":
                chain += own.certificate.public_bytes(Encoding.PEM)
            self.put(f"{name}.pem", chain)
            renewed.append(name)
        return renewed

    def door(self) -> Door:
        """Return by what machines are enrolled."""
        path, roots = self.path("ek_roots.pem"), atomic_file.read(self.path("ek_roots.pem"), _MAX_PEM)
        return Door(authority=self.authority(), ek_roots=certificate.load_bundle(roots, path) if roots else ())

    def sealing(self, origin: str, answers: Answers, tuning: Tuning) -> SealingKey:
        """Open the key that deposits are sealed to."""
        return sealing_key.load(self._around(origin, answers, tuning))

    def _around(self, origin: str, answers: Answers, tuning: Tuning) -> Surroundings:
        return Surroundings(path=self.path("sealing.json"), origin=origin, answers=answers, tuning=tuning)

    def office(self, settings: SiteSettings, sealing: SealingKey) -> Office:
        """Return what this custodian answers with, by the machine's clock and randomness."""
        return Office(
            origin=settings.origin,
            labels=settings.labels,
            signer=Owner(self._private("signing.key")),
            log=self.log_signer(settings),
            sealing=sealing,
            zones=zoneinfo.ZoneInfo,
            now=lambda: int(time.time()),
            random=os.urandom,
            appraiser=self._appraiser(settings),
        )

    def _appraiser(self, settings: SiteSettings) -> Appraiser | None:
        service = settings.appraiser
        if service is None:
            return None
        self._read("appraiser.pem")  # says now what would be wrong at the first request
        peer = self.peer(service.at, service.name, self.path("appraiser.pem"))
        return Appraiser(name=service.name, key=PublicKey(raw=service.key), ask=replace(peer, bounds=ASKING).ask)

    def prover(self, office: Office, collector: Collector) -> Prover:
        """Return who proves to machines what this custodian runs."""
        shown = certificate.load_bundle(self._read("tls.pem"), self.path("tls.pem"))[0]
        return Prover(collector=collector, office=office, tls_key=authority.key_der(shown.parsed))

    def writers(self, settings: SiteSettings, office: Office) -> GroupCommit:
        """Return by whom the threads of this process write."""
        return GroupCommit(lambda: self.open_store(settings), self.directory, office.log)

    def make(self, plan: Plan, who: Actor, answers: Answers, tuning: Tuning) -> None:
        """Found a custodian; raises `UsageError` if there is one. What exists is never overwritten.

        The settings come last: without them the directory is none, and `init` says what is in the way.
        """
        now = int(time.time())
        authority.check_names(plan.names)
        if os.path.isdir(self.directory) and os.listdir(self.directory):
            raise UsageError(f"{self.directory} is not empty", "name another directory, or empty this one")
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        except OSError as error:
            raise KeyquorumError(f"{self.directory} cannot be made: {error.strerror}") from None
        for name in ("signing.key", "witness.key"):
            self._create(name, owner_key.pem(Ed25519PrivateKey.generate()))
        own = authority.found(plan.settings.origin, now)
        self._create("authority.key", authority.key_pem(own.private))
        pem = own.certificate.public_bytes(Encoding.PEM)
        self._create("authority.pem", pem)
        self._create("clients.pem", pem)
        server = authority.new_key()
        self._create("tls.key", authority.key_pem(server))
        certificate = own.issue_server(server.public_key(), plan.names, now)
        self._make_client(own, plan.settings.origin, now)
        self._create("tls.pem", certificate.public_bytes(Encoding.PEM) + pem)
        around = self._around(plan.settings.origin, answers, tuning)
        sealing_key.make(plan.kept, plan.uri, around).wipe()
        with closing(store.found_store(self.path("custodian.db"), plan.settings.origin, who, now)) as made:
            self._create("founded.note", made.sign_checkpoint(self.log_signer(plan.settings)))
        self._create("custodian.toml", site_settings.serialise(plan.settings))

    def _make_client(self, own: Authority, origin: str, now: int) -> None:
        """Make the certificate by which this custodian asks others, as their auditor and witness."""
        private = authority.new_key()
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._create("client.key", authority.key_pem(private))
        self._create("client.pem", own.issue_client(public, origin[:64], {}, now).public_bytes(Encoding.PEM))

    def client_key(self) -> str:
        """Return the SHA-256 by which others know this custodian as an auditor."""
        return hashlib.sha256(authority.key_der(self._certificate("client").parsed)).hexdigest()

    def peer(self, address: Address, name: str, authority_file: str) -> Peer:
        """Return another custodian, asked by our certificate."""
        return Peer(
            address=address,
            name=name,
            authority=authority_file,
            certificate=self.path("client.pem"),
            key=self.path("client.key"),
        )

    def witnessed(self, settings: SiteSettings) -> int:
        """Return how many entries of the log its witnesses have, as far as this directory knows."""
        kept = atomic_file.read(self.path("newest.note"), note.MAX_NOTE)
        if not kept:
            return 0
        found = checkpoint.verify(kept, self.log_signer(settings).key, settings.witnesses)
        return found.checkpoint.size if found.witnesses else 0

    def keep_newest(self, note_of_ours: bytes) -> None:
        """Keep a verified checkpoint of our log for the next start, unless what is kept is worth more."""
        with turn(self.directory):  # between the look and the writing another process may keep a newer one
            kept = atomic_file.read(self.path("newest.note"), note.MAX_NOTE)
            if not kept or checkpoint.replaces(note_of_ours, kept):
                self.put("newest.note", note_of_ours)

    def put(self, name: str, data: bytes) -> None:
        """Write one of the files so that the service can read it, whoever writes: it is the directory's owner's."""
        try:
            place = os.stat(self.directory)
        except OSError as error:
            raise KeyquorumError(f"{self.directory} cannot be read: {error.strerror}") from None
        owner = (place.st_uid, place.st_gid) if os.geteuid() == 0 else None
        atomic_file.write(self.path(name), data, owner=owner)

    def _create(self, name: str, data: bytes) -> None:
        if not atomic_file.create(self.path(name), data):
            raise UsageError(f"{self.path(name)} is there already")
