# SPDX-License-Identifier: Apache-2.0
"""A custodian's directory with a fleet of machines: TLS keys, attestation keys and deposits, all made for a run.

The attestation keys are software: what they sign costs the custodian the same. All that a question needs but its nonce
is prepared here, so that the processes that ask cost little beside the custodian.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.custodian_site import EVER, ORIGIN, Wire, a_site, opened
from keyquorum.custodian import receipt
from keyquorum.custodian.authority import Authority
from keyquorum.custodian.decision import Client
from keyquorum.custodian.entry import Actor
from keyquorum.custodian.sealing_key import SealingKey
from keyquorum.custodian.site import Site
from keyquorum.custodian.store import Deposit, Store, sha256
from keyquorum.custodian.store_deposits import Deposits
from keyquorum.custodian.store_enrolment import Enrolments
from keyquorum.envelope import recipient_key
from keyquorum.envelope.hpke import X_WING
from keyquorum.envelope.sealing import Recipient
from keyquorum.holders.contract import Tuning
from keyquorum.linux import owner_key
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import release_messages
from keyquorum.model.fragment_name import FragmentName
from keyquorum.secret import Identity
from unit.custodian import offices
from unit.custodian.offices import FLEET, WebServer
from unit.custodian.stores import OPERATOR
from unit.evidence.tpm_maker import Key

_SET = bytes(range(16))


@dataclass(frozen=True, kw_only=True)
class Member:
    """One machine: what it is to the custodian, which fragment it asks for, and its TLS context, made once."""

    machine: WebServer
    fragment: FragmentName
    one_time_key: bytes
    context: ssl.SSLContext


def make(directory: str, size: int) -> tuple[Site, list[Member]]:
    """Found a custodian that listens on the loopback, and enrol `size` machines with a deposit each."""
    site = a_site(os.path.join(directory, "site"))
    own, now = site.authority(), int(time.time())
    sealing = site.sealing(ORIGIN, LocalAnswers(), Tuning())
    with Identity.from_view(os.urandom(32)) as seed:
        one_time = recipient_key.encode(Recipient.of(seed, X_WING))
    members = []
    with contextlib.closing(site.open_store(site.settings())) as store:
        for number in range(size):
            machine, context = _machine(site, own, f"web-{number}", now)
            fragment = FragmentName(volume=f"6d1c7d1e-5ab0-4d6f-8b0e-{number:012x}", set_id=_SET, epoch=1, index=1)
            _deposit(store, sealing, machine, fragment)
            members.append(Member(machine=machine, fragment=fragment, one_time_key=one_time, context=context))
    return site, members


def _machine(site: Site, own: Authority, name: str, now: int) -> tuple[WebServer, ssl.SSLContext]:
    """A machine with its own keys; its TLS key is of the kind that `machine enroll` makes."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate = own.issue_client(public, name, {"country": "NO"}, now)
    path = site.path(f"{name}.client")
    with open(path, "xb") as file:
        file.write(owner_key.pem(private) + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(site.path("authority.pem"))
    context.load_cert_chain(path)
    client = Client(key=hashlib.sha256(public).digest(), name=name)
    return WebServer(key=Key(number=int(name.removeprefix("web-"))), origin=ORIGIN, client=client), context


def _deposit(store: Store, sealing: SealingKey, machine: WebServer, fragment: FragmentName) -> None:
    name = machine.client.name
    store.enrol_machine(machine.enrolled, OPERATOR, 1)
    Enrolments(store).admit(name, FLEET.public.raw, OPERATOR, 1)
    sealed = offices.sealed_identity(sealing, name, fragment, ORIGIN).serialise()
    policy = offices.policy(**EVER, volumes=[fragment.volume], machines=[name], name=name)
    who = Actor(role="owner", name="fleet", key=sha256(FLEET.public.raw))
    Deposits(store).deposit(Deposit(fragment, name, sealed, policy, offices.reference(**EVER, log=None)), who, 1)


def prove(wire: Wire, member: Member) -> None:
    """Ask once as a machine does that reads its answer; AssertionError if what comes back is not what was deposited."""
    connection = http.client.HTTPSConnection("127.0.0.1", wire.port, context=member.context, timeout=30)
    connection.sock = member.context.wrap_socket(
        socket.create_connection(("127.0.0.1", wire.port)), server_hostname=ORIGIN
    )
    answered = wire.ask("/v1/challenge", release_messages.challenge_request(member.fragment), connection)
    payload, _ = wire.signed(answered, release_messages.CHALLENGE_TYPE)
    nonce = release_messages.parse_challenge(payload, ORIGIN, member.fragment).nonce
    request = member.machine.request(nonce, member.fragment)
    answered = wire.ask("/v1/release", release_messages.release_request(request), connection)
    connection.close()
    payload, proof = wire.signed(answered, release_messages.ANSWER_TYPE)
    assert opened(member.machine, payload, request) == offices.SECRET
    assert receipt.verify(proof, wire.site.log_signer(wire.site.settings()).key).entry.act == "released"
