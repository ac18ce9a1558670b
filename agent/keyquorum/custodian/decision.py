# SPDX-License-Identifier: Apache-2.0
"""Answering a machine: challenge, and release in the order of docs/custodian.md §4.

Clock, randomness, time zones and keys are the office's. What was decided is on the disk before anything is sealed for
the machine; whatever fails after that is a release that nobody received, never one without its entry.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from keyquorum.custodian import appraisal, entry, merkle, release_policy
from keyquorum.custodian.approval import Pending
from keyquorum.custodian.entry import CHALLENGE, Actor, Entry
from keyquorum.custodian.release_policy import Request
from keyquorum.custodian.store_releases import NONCE_LIFE, Ask, Releases
from keyquorum.custodian.verdict import DENIED, RELEASED, Verdict
from keyquorum.envelope import dsse, recipient_key
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError
from keyquorum.evidence import binding
from keyquorum.evidence import signed_policy as reference
from keyquorum.evidence.binding import Binding
from keyquorum.evidence.result import Check, Outcome, Status, printable
from keyquorum.evidence.tpm_quote import AttestationKey
from keyquorum.model import deposit_messages, release_messages
from keyquorum.model.release_messages import Challenge, Denied, Released, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from keyquorum.custodian.appraisal import Appraised
    from keyquorum.custodian.appraiser import Appraiser
    from keyquorum.custodian.group_commit import GroupCommit, Signed
    from keyquorum.custodian.note import NoteSigner
    from keyquorum.custodian.release_policy import Zones
    from keyquorum.custodian.sealing_key import SealingKey
    from keyquorum.custodian.store import Deposit, Machine, Store
    from keyquorum.custodian.store_releases import Answer, Standing
    from keyquorum.envelope.sealing import Recipient
    from keyquorum.envelope.signing import Owner
    from keyquorum.model.fragment_name import FragmentName
    from keyquorum.model.release_messages import ReleaseRequest

RETRY_AFTER = 30  # seconds until a machine that waits for people asks again
_RELEASE_INFO = b"keyquorum/v1/release\x00"
_SPEC = "docs/custodian.md §4"
_PLACES = {"regions": "region", "countries": "country", "operators": "operator"}  # rules of a policy, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who is at the other end: SHA-256 of the TLS key, name and labels of the certificate, address.

    `ours` says whether this custodian's own authority issued the certificate; nobody else's word counts for labels.
    """

    key: bytes
    name: str
    ours: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What the custodian answers with. `now` is in seconds since 1970, `random` gives that many bytes."""

    origin: str
    labels: Mapping[str, str]
    signer: Owner
    log: NoteSigner
    sealing: SealingKey
    zones: Zones
    now: Callable[[], int]
    random: Callable[[int], bytes]
    appraiser: Appraiser | None = None  # without one the custodian appraises itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the machine gets: the answer, its signed envelope, and the receipt if something was released."""

    answer: Released | Waiting | Denied
    envelope: dict[str, Any]
    receipt: bytes = b""


class Desk:
    """Where one thread answers machines, with a store of its own."""

    def __init__(self, store: Store, office: Office, writers: GroupCommit) -> None:
        self._store, self._office, self._writers = store, office, writers
        self._releases = Releases(store)

    def challenge(self, client: Client, wanted: FragmentName) -> dict[str, Any]:
        """Return a signed challenge; raises `RefusedError` for a client that is no enrolled machine."""
        now, office = self._office.now(), self._office
        nonce = office.random(release_messages.NONCE)

        def issue(store: Store) -> str:
            """Return why not; this is written down too."""
            ask, certificate, machine = _identify(store, client, wanted)
            if certificate.outcome is not Outcome.FAILED and machine is not None and not machine.revoked:
                Releases(store).issue(nonce, ask, now)
                return ""
            reason = certificate.actual if machine is None or not machine.revoked else f"{machine.name} is revoked"
            store.record(_refusal(ask, now, reason, certificate))
            return reason

        reason = self._writers.run(issue)
        if reason:
            raise RefusedError(f"no challenge for this client: {reason}")
        made = Challenge(custodian=office.origin, fragment=wanted, nonce=nonce, expires=now + NONCE_LIFE)
        return office.signer.sign(release_messages.CHALLENGE_TYPE, release_messages.challenge_payload(made))

    def release(self, client: Client, request: ReleaseRequest) -> Said:
        """Decide about a request and answer it; raises what kept the store from writing, or the key from opening."""
        now = self._office.now()
        ask, certificate, machine = _identify(self._store, client, request.fragment, request)
        recipient, sealable = _recipient(request)
        case = _Case(self._office, request, (client, machine), now)

        def decide(store: Store) -> Answer:
            """Spend and decide in one transaction, each as a part of its own: what is spent stays so."""
            nonce = Releases(store).spend(request.nonce, ask, now)
            before = _up_to_failure(certificate, nonce, sealable)
            return Releases(store).decide(ask, now, partial(case.judge, store), before)

        prepared = False
        try:
            self._prepare(case, ask, (certificate, sealable))
            prepared = True
        finally:
            if not prepared:  # a nonce is spent by the first request that names it, whatever becomes of that request
                self._writers.run(lambda store: Releases(store).spend(request.nonce, ask, now))
        found = self._writers.run_signed(decide, _released)
        return self._said(request, found, case.question, recipient)

    def _prepare(self, case: _Case, ask: Ask, checks: tuple[Check, Check]) -> None:
        """Appraise the evidence, which takes long, before the store is locked for everybody, if it is worth that."""
        with self._store.snapshot():
            nonce = self._releases.standing(case.request.nonce, ask, case.now)
            if any(check.outcome is Outcome.FAILED for check in (*checks, nonce)):
                return
            known = case.known(self._store, self._releases.look(ask))
        case.prepare(known)

    def _said(
        self, request: ReleaseRequest, found: Signed[Answer], question: bytes, recipient: Recipient | None
    ) -> Said:
        decided = found.result
        number, proof = decided.entry.number, b""
        answer: Released | Waiting | Denied
        if decided.entry.act == RELEASED and recipient is not None:
            enc, ciphertext = self._sealed(request, decided, question, recipient)
            answer = Released(question=question, number=number, enc=enc, ciphertext=ciphertext)
            proof = found.receipt
        elif decided.pending is not None:
            answer = Waiting(question=question, number=decided.pending, retry_after=RETRY_AFTER)
        else:
            answer = _denied(decided.entry, question)
        payload = release_messages.answer_payload(answer)
        envelope = self._office.signer.sign(release_messages.ANSWER_TYPE, payload)
        return Said(answer=answer, envelope=envelope, receipt=proof)

    def _sealed(
        self, request: ReleaseRequest, decided: Answer, question: bytes, recipient: Recipient
    ) -> tuple[bytes, bytes]:
        info = deposit_messages.sealing_info(self._office.origin, decided.entry.machine, request.fragment)
        try:
            identity = self._office.sealing.open(deposit_messages.parse_sealed(decided.sealed), info)
        except RefusedError as problem:  # no answer to the machine, which did nothing wrong
            raise KeyquorumError(f"a deposit does not open: {problem.message}") from None
        with identity:
            return recipient.seal(identity, _RELEASE_INFO + question)


class _Case:
    """One request while it is decided. The evidence is appraised before the store is locked for everybody."""

    def __init__(self, office: Office, request: ReleaseRequest, who: tuple[Client, Machine | None], now: int) -> None:
        self._office, self.request, self.now = office, request, now
        self._client, self._machine = who
        self._looked: Deposit | None = None
        self._appraised: Appraised | None = None
        self.question = question_of(office.origin, request)

    def known(self, store: Store, deposit: Deposit | None) -> tuple[Deposit, appraisal.Known] | None:
        """Return what a machine's evidence is to be appraised by, if a deposit for it stands now."""
        if deposit is None or self._machine is None:
            return None
        return deposit, self._known(Releases(store), deposit, self._machine)

    def prepare(self, known: tuple[Deposit, appraisal.Known] | None) -> None:
        """Appraise before the store is locked for everybody."""
        if known is not None:
            self._looked, self._appraised = known[0], self._appraise(known[1])

    def _known(self, releases: Releases, deposit: Deposit, machine: Machine) -> appraisal.Known:
        owner = dsse.PublicKey(raw=releases.owner_of(deposit))
        return appraisal.Known(
            key=AttestationKey(area=machine.attestation_key, qualified_name=machine.qualified_name),
            reference=reference.SignedPolicy(envelope=deposit.reference, signers=(owner,) if owner.raw else ()),
            last=releases.last_clock(machine.name),
        )

    def _appraise(self, known: appraisal.Known) -> Appraised:
        appraiser = self._office.appraiser
        appraise = appraisal.appraise if appraiser is None else appraiser.appraise
        return appraise(self.request.evidence, self.question, known, self.now)

    def judge(self, store: Store, deposit: Deposit, standing: Standing) -> Verdict:
        """Steps 4 to 6, within the transaction of a store."""
        if self._machine is None:
            raise RefusedError("no machine to judge")
        appraised = self._appraised
        if appraised is None or deposit != self._looked:  # replaced by its owner in between
            if self._office.appraiser is not None:  # nobody on the network is waited for while the store is locked
                raise RefusedError("the deposit was replaced while its evidence was appraised; ask again")
            appraised = self._appraise(self._known(Releases(store), deposit, self._machine))
        state = {"attestation": str(appraised.result.status)}
        if appraised.result.status is Status.UNTRUSTED:
            return Verdict(
                act=DENIED,
                reason=appraised.result.reason,
                checks=appraised.checks,
                facts=state,
                evidence=appraised.kept,
            )
        owner = Releases(store).owner_of(deposit)
        policy = reference.SignedPolicy(envelope=deposit.policy, signers=(dsse.PublicKey(raw=owner),) if owner else ())
        asked = self._asked(store, deposit, standing, state["attestation"])
        said = release_policy.decide(policy, asked, self._office.zones)
        return Verdict(
            act=said.act,
            reason=said.reason,
            checks=appraised.checks + said.checks,
            facts=said.facts,
            within=said.within,
            evidence=appraised.kept,
            clock=appraised.clock,
        )

    def _asked(self, store: Store, deposit: Deposit, standing: Standing, state: str) -> Request:
        waiting = None
        if standing.pending is not None:
            body = store.log.body(standing.pending)
            # Whoever approved a machine that was found in order approved none that shows nothing of itself any more.
            if state in {str(Status.TRUSTED), entry.parse(body).facts.get("attestation")}:
                leaf = merkle.leaf_hash(body)
                waiting = Pending(custodian=self._office.origin, number=standing.pending, entry=leaf)
        requester = self._client.labels
        return Request(
            now=self.now,
            volume=deposit.fragment.volume,
            machine=deposit.machine,
            attestation=state,
            custodian={place: self._office.labels.get(label, "") for place, label in _PLACES.items()},
            requester={place: requester.get(label, "") for place, label in _PLACES.items()},
            releases_in_hour=standing.releases_in_hour,
            releases=standing.releases,
            pending=waiting,
            approvals=standing.approvals,
        )


def _identify(
    store: Store, client: Client, wanted: FragmentName, request: ReleaseRequest | None = None
) -> tuple[Ask, Check, Machine | None]:
    """Find the machine that a certificate is of, and note what every entry about it says."""
    machine = store.machine_of(client.key)
    facts = {name: text for name, text in {**client.labels, "address": client.address}.items() if text}
    if request is not None:
        facts["nonce-sha256"] = hashlib.sha256(request.nonce).hexdigest()
        facts["recipient-sha256"] = hashlib.sha256(request.key).hexdigest()
    role, name = ("unknown", client.name) if machine is None else ("machine", machine.name)
    who = Actor(role=role, name=printable(name), key=client.key.hex())
    known = "of no enrolled machine" if machine is None else f"of {machine.name}, and says {client.name}"
    holds = machine is not None and machine.name == client.name and client.ours
    actual = f"of {client.name}" if holds else known if client.ours else "of another authority"
    check = _check("certificate", "a certificate of an enrolled machine", actual, holds)
    return Ask(who=who, fragment=wanted, facts=facts), check, machine


def question_of(origin: str, request: ReleaseRequest) -> bytes:
    """Return what the machine's quote must answer (32 bytes)."""
    fragment = request.fragment
    return binding.qualifying_data(
        Binding(
            nonce=request.nonce,
            verifier=origin,
            volume=fragment.volume,
            set_id=fragment.set_id,
            index=fragment.index,
            epoch=fragment.epoch,
            key=request.key,
        )
    )


def _recipient(request: ReleaseRequest) -> tuple[Recipient | None, Check]:
    """Return whom to seal to."""
    expected = f"a one-time key of {request.kem}"
    try:
        found = recipient_key.parse(request.kem, request.key)
    except TamperingError as problem:
        return None, _check("recipient", expected, problem.problem, holds=False)
    return found, _check("recipient", expected, expected, holds=True)


def _released(found: Answer) -> int | None:
    """Return the entry of which the machine gets a receipt."""
    return found.entry.number if found.entry.act == RELEASED else None


def _up_to_failure(*checks: Check) -> tuple[Check, ...]:
    made: list[Check] = []
    for check in checks:
        made.append(check)
        if check.outcome is Outcome.FAILED:
            break
    return tuple(made)


def _denied(found: Entry, question: bytes) -> Denied:
    """Say which check failed first, or what kept the rules from being evaluated."""
    failed = next((check for check in found.checks if check.outcome is Outcome.FAILED), None)
    name, expected, actual = (
        ("evaluation", "no error", found.reason) if failed is None else (failed.name, failed.expected, failed.actual)
    )
    return Denied(
        question=question, number=found.number, check=name, expected=printable(expected), actual=printable(actual)
    )


def _check(name: str, expected: str, actual: str, holds: bool) -> Check:
    outcome = Outcome.PASSED if holds else Outcome.FAILED
    return Check(name=name, spec=_SPEC, expected=printable(expected), actual=printable(actual), outcome=outcome)


def _refusal(ask: Ask, now: int, reason: str, check: Check) -> Entry:
    return Entry(
        number=0,
        at=now,
        kind=CHALLENGE,
        act="refused",
        who=ask.who,
        machine=ask.who.name if ask.who.role == "machine" else "",
        fragment=ask.fragment,
        reason=reason,
        checks=(check,),
        facts=ask.facts,
    )
