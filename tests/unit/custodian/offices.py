# SPDX-License-Identifier: Apache-2.0
"""A whole custodian but for its sockets, and a machine whose TPM is software: what it quotes may be wrong at will."""

from __future__ import annotations

import hashlib
import os
import zoneinfo
from dataclasses import dataclass, field
from typing import Any

from keyquorum.custodian import policy_format
from keyquorum.custodian.decision import Client, Desk, Office, Said, question_of
from keyquorum.custodian.entry import Entry
from keyquorum.custodian.group_commit import GroupCommit
from keyquorum.custodian.sealing_key import SealingKey
from keyquorum.custodian.store import Deposit, Machine, Store, found_store, sha256
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.envelope import hpke, recipient_key
from keyquorum.envelope.sealing import Recipient
from keyquorum.envelope.signing import Owner
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.model import deposit_messages, release_messages, strict_json
from keyquorum.model.deposit_messages import SealedIdentity
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.release_messages import ReleaseRequest, TpmEvidence
from keyquorum.secret import Identity
from unit.custodian.notes import FRAGMENT, LOG, ORIGIN, private
from unit.custodian.stores import OPERATOR
from unit.evidence import tpm_maker
from unit.evidence.tpm_maker import BOOT, Attest, Key, selection, values_of

NOW = tpm_maker.NOW
FLEET = Owner(private(40))
SIGNER = Owner(private(1))
SECRET = bytes(range(100, 132))  # the identity that is deposited
LABELS = {"region": "eu-west", "country": "FR", "operator": "acme"}
FREE: dict[str, Any] = {
    "version": 1,
    "name": "web",
    "serial": 1,
    "issued": NOW - 1000,
    "expires": NOW + 1000,
    "volumes": [FRAGMENT.volume],
    "machines": ["web-1"],
    "attestation": ["trusted"],
    **dict.fromkeys(("regions", "countries", "operators", "hours", "limits", "approvals"), "any"),
}


def reference(**changes: Any) -> bytes:
    """Reference values of a machine as it should be."""
    pcrs = {str(pcr): [value.hex()] for pcr, value in values_of(BOOT).items()}
    return tpm_maker.signed(tpm_maker.policy_table(pcrs) | changes, FLEET)


def policy(owner: Owner = FLEET, **changes: Any) -> bytes:
    payload = strict_json.serialise(FREE | changes)
    return strict_json.serialise(owner.sign(policy_format.POLICY_TYPE, payload))


def a_key(seed: int = 7) -> SealingKey:
    return SealingKey(Identity.from_view(bytes([seed]) * 32))


@dataclass(kw_only=True)
class Clock:
    """The custodian's clock."""

    now: int = NOW


def office(clock: Clock, sealing: SealingKey) -> Office:
    return Office(
        origin=ORIGIN,
        labels=LABELS,
        signer=SIGNER,
        log=LOG,
        sealing=sealing,
        zones=zoneinfo.ZoneInfo,
        now=lambda: clock.now,
        random=os.urandom,
    )


@dataclass(kw_only=True)
class WebServer:
    """A machine; change one thing and ask."""

    key: Key = field(default_factory=Key)
    origin: str = ORIGIN
    client: Client = field(
        default_factory=lambda: Client(
            key=b"\x01" * 32, name="web-1", labels={"country": "NO", "region": "eu-north"}, address="192.0.2.7"
        )
    )
    events: tuple[tuple[int, int, bytes], ...] = BOOT
    attest: dict[str, Any] = field(default_factory=dict)
    one_time: Identity = field(default_factory=lambda: Identity.from_view(b"\x33" * 32))
    clock: ClockInfo = tpm_maker.CLOCK

    @property
    def enrolled(self) -> Machine:
        area = self.key.enrolled
        return Machine(self.client.name, self.client.key, area.area, area.qualified_name)

    @property
    def one_time_key(self) -> bytes:
        return recipient_key.encode(Recipient.of(self.one_time, hpke.X25519))

    def request(self, nonce: bytes, fragment: FragmentName = FRAGMENT, **changes: Any) -> ReleaseRequest:
        """A request with a quote that answers its question, unless told otherwise."""
        parts: dict[str, Any] = {"nonce": nonce, "fragment": fragment, "kem": "x25519", "key": self.one_time_key}
        bare = ReleaseRequest(**parts, evidence=TpmEvidence(attest=b"", signature=b"", pcrs=()))
        evidence = changes.pop("evidence", None) or self.quote(question_of(self.origin, bare))
        return bare.with_(evidence=evidence, **changes)

    def quote(self, question: bytes) -> TpmEvidence:
        values = values_of(self.events)
        digest = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(values))).digest()
        made: dict[str, Any] = {
            "signer": self.key.enrolled.qualified_name,
            "digest": digest,
            "selections": (selection("sha256", *values),),
            "nonce": question,
            "clock": self.clock,
        }
        attest = Attest(**(made | self.attest)).data
        return TpmEvidence(
            attest=attest,
            signature=self.key.sign(attest),
            pcrs=tuple(sorted(values.items())),
            log=tpm_maker.log(self.events),
        )

    def opened(self, said: Said, request: ReleaseRequest) -> bytes:
        """What the machine gets out of an answer."""
        answer = said.answer
        assert isinstance(answer, release_messages.Released)
        info = b"keyquorum/v1/release\x00" + question_of(self.origin, request)
        with hpke.open_sealed(hpke.X25519, self.one_time, answer.enc, answer.ciphertext, info) as found:
            return bytes(found.view)


def sealed_identity(
    sealing: SealingKey, machine: str = "web-1", fragment: FragmentName = FRAGMENT, origin: str = ORIGIN
) -> SealedIdentity:
    with Identity.from_view(SECRET) as identity:
        info = deposit_messages.sealing_info(origin, machine, fragment)
        enc, ciphertext = sealing.recipient.seal(identity, info)
    return SealedIdentity(enc=enc, ciphertext=ciphertext)


def a_desk(store: Store, office: Office) -> Desk:
    """A desk whose writer is the store that it reads."""
    _, _, path = store._database.execute("PRAGMA database_list").fetchone()
    return Desk(store, office, GroupCommit(lambda: store, os.path.dirname(path), office.log))


class Custodian:
    """A store with one machine and one deposit, and a desk before it."""

    def __init__(
        self, directory: object, machine: WebServer, policy_envelope: bytes = b"", values: bytes = b""
    ) -> None:
        self.path = os.path.join(str(directory), "custodian.db")
        self.clock = Clock()
        self.sealing = a_key()
        self.office = office(self.clock, self.sealing)
        self.store: Store = found_store(self.path, ORIGIN, OPERATOR, NOW)
        self.store.enrol_machine(machine.enrolled, OPERATOR, NOW)
        self.admit(machine.client.name, FLEET)
        sealed = sealed_identity(self.sealing).serialise()
        self.deposit = Deposit(FRAGMENT, "web-1", sealed, policy_envelope or policy(), values or reference())
        Deposits(self.store).deposit(self.deposit, owner_actor(FLEET), NOW)
        self.desk = a_desk(self.store, self.office)

    def admit(self, machine: str, owner: Owner) -> None:
        row = (machine, owner.public.raw)
        self.store._database.execute("INSERT INTO owner (machine, key) VALUES (?, ?)", row)

    def nonce(self, machine: WebServer, fragment: FragmentName = FRAGMENT) -> bytes:
        envelope = self.desk.challenge(machine.client, fragment)
        payload = strict_json.parse(_payload(envelope), "", 1 << 16, ValueError)  # type: ignore[arg-type]
        return bytes.fromhex(payload["nonce"])

    def ask(self, machine: WebServer, **changes: Any) -> tuple[Said, Entry]:
        """Challenge and release; return what was said and the entry about it."""
        said = self.desk.release(machine.client, machine.request(self.nonce(machine), **changes))
        return said, self.last

    @property
    def last(self) -> Entry:
        return self.store.log.entry(self.store.log.size - 1)


def owner_actor(owner: Owner) -> Any:
    from keyquorum.custodian.entry import Actor

    return Actor(role="owner", name="fleet", key=sha256(owner.public.raw))


def _payload(envelope: dict[str, Any]) -> bytes:
    from keyquorum.envelope import dsse

    return dsse.parse(envelope, "").payload
