# SPDX-License-Identifier: Apache-2.0
"""A custodian in memory that does what the page says, over real TLS on the loopback; for the machine's side only.

It verifies quotes by the verifier's code and seals by `cryptography`. `answers` may be replaced: each takes what the
machine sent and returns status and body, so a test can lie in one place and be honest in all others.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from devices.holder_tasks import Given
from keyquorum.envelope.signing import Owner
from keyquorum.evidence import tpm_checks, tpm_public, tpm_quote
from keyquorum.evidence.binding import Binding, qualifying_data
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.tpm_quote import AttestationKey, QuoteEvidence
from keyquorum.evidence.tpm_quote import Challenge as Wanted
from keyquorum.holders import machine_keys
from keyquorum.holders.contract import Tuning
from keyquorum.holders.custodian_where import Where
from keyquorum.model import network_address
from keyquorum.model import release_messages as messages
from keyquorum.model.machine_identity import KnownCustodian
from keyquorum.model.release_messages import Challenge, Denied, Released
from unit.linux.tls_authority import CUSTODIAN, Authority, Server, server_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.holders.machine_keys import MadeKeys
    from keyquorum.model.machine_identity import MachineIdentity
    from keyquorum.model.release_messages import ReleaseRequest

    Reply = tuple[int, bytes]

ENC = {"x25519": 32, "x-wing": 1120}
PCRS = (0, 1, 2, 3, 4, 5, 6, 7)


class MachineUnderTest:
    """A machine with a TPM, its identity in a file, enrolled at whoever asks."""

    def __init__(self, device: str, directory: str) -> None:
        self.tuning = Tuning(tpm_device=device, machine=os.path.join(directory, "machine.json"))
        self.keys: MadeKeys = machine_keys.make(self.tuning, Given(), lambda _line: None)
        self.identity: MachineIdentity = self.keys.identity

    def enrol(self, custodian: StandIn) -> None:
        """Give it a certificate of the custodian's authority."""
        issued = custodian.authority.issue("web-1", _Public(self.keys.tls_key), server=False)
        where = custodian.where()
        known = KnownCustodian(
            machine="web-1",
            key=where.key,
            authority=where.authority,
            addresses=where.addresses,
            sealing=b"none",
            chain=(issued,),
        )
        self.identity = self.identity.knowing(custodian.name, known)
        self.write()
        custodian.attestation_key = self.keys.attested.ak

    def write(self) -> None:
        with open(self.tuning.machine, "wb") as file:
            file.write(self.identity.to_json())


class _Public:
    """What the authority wants of a key whose private half it must not see."""

    def __init__(self, spki: bytes) -> None:
        self._spki = spki

    def public_key(self) -> Any:
        return load_der_public_key(self._spki)


class StandIn:
    """One custodian, one deposit for each fragment."""

    def __init__(self, directory: str, name: str = CUSTODIAN, host: str = "127.0.0.1") -> None:
        self.name, self.authority = name, Authority()
        self.signer = Owner(Ed25519PrivateKey.generate())
        self.attestation_key = b""
        self.deposits: dict[tuple[str, int], bytes] = {}
        self.challenges: dict[bytes, Challenge] = {}
        self.requests: list[tuple[str, bytes]] = []
        self.headers = ""
        self.ended = threading.Event()
        self.answers: dict[str, Callable[[bytes], Reply]] = {
            "/v1/challenge": self.challenge,
            "/v1/release": self.release,
        }
        self.server = Server(server_context(self.authority, directory, name=name), self._serve, host)

    def where(self, **changes: Any) -> Where:
        endpoint = network_address.parse(self.server.address)
        assert endpoint is not None
        made = Where(
            custodian=self.name,
            key=self.signer.public.raw,
            authority=self.authority.der,
            addresses=(endpoint,),
            bank="sha256",
            pcrs=PCRS,
        )
        return made.with_(**changes)

    def _serve(self, connection: Any) -> None:
        held = b""
        while not self.ended.is_set():
            while b"\r\n\r\n" not in held:
                data = connection.recv(65536)
                if not data:
                    return
                held += data
            head, _, held = held.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(held) < size:
                held += connection.recv(65536)
            body, held = held[:size], held[size:]
            self.requests.append((path, body))
            status, answer = self.answers[path](body)
            line = f"HTTP/1.1 {status} x\r\n{self.headers}Content-Length: {len(answer)}\r\n\r\n"
            connection.sendall(line.encode() + answer)

    def signed(self, payload_type: str, payload: bytes) -> bytes:
        return messages.answer_body(self.signer.sign(payload_type, payload))

    def challenge(self, body: bytes) -> Reply:
        made = Challenge(
            custodian=self.name,
            fragment=messages.parse_challenge_request(body),
            nonce=os.urandom(32),
            expires=int(time.time()) + 60,
        )
        self.challenges[made.nonce] = made
        return 200, self.signed(messages.CHALLENGE_TYPE, messages.challenge_payload(made))

    def release(self, body: bytes) -> Reply:
        request = messages.parse_release_request(body)
        question = self.question(request)
        if self.challenges.pop(request.nonce, None) is None or not self.believes(request, question):
            denied = Denied(question=question, number=8, check="evidence", expected="trusted", actual="untrusted")
            return 403, self.signed(messages.ANSWER_TYPE, messages.answer_payload(denied))
        name = request.fragment
        enc, ciphertext = seal(request, self.deposits[name.volume, name.index], question)
        released = Released(question=question, number=7, enc=enc, ciphertext=ciphertext)
        return 200, self.signed(messages.ANSWER_TYPE, messages.answer_payload(released))

    def question(self, request: ReleaseRequest) -> bytes:
        name = request.fragment
        return qualifying_data(
            Binding(
                nonce=request.nonce,
                verifier=self.name,
                volume=name.volume,
                set_id=name.set_id,
                index=name.index,
                epoch=name.epoch,
                key=request.key,
            )
        )

    def believes(self, request: ReleaseRequest, question: bytes) -> bool:
        area = tpm_public.parse(self.attestation_key, "the AK")
        key = AttestationKey(area=area.area, qualified_name=tpm_public.qualified_name((area.name,)))
        given = request.evidence
        evidence = QuoteEvidence(attest=given.attest, signature=given.signature, pcrs=dict(given.pcrs), log=given.log)
        checks = Checks(tpm_checks.REFERENCES)
        found = tpm_quote.verify(evidence, Wanted(key=key, extra_data=question), "sha256", PCRS, checks)
        return found is not None and not checks.failed

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.server.__exit__()


def seal(request: ReleaseRequest, plain: bytes, question: bytes) -> tuple[bytes, bytes]:
    """Seal to the one-time key of a request."""
    if request.kem == "x25519":
        public: Any = load_der_public_key(request.key)
        kem = pyca.KEM.X25519
    else:
        raw = request.key[-1216:]
        public = pyca.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(raw[:1184]), x25519.X25519PublicKey.from_public_bytes(raw[1184:])
        )
        kem = pyca.KEM.MLKEM768_X25519
    suite = pyca.Suite(kem, pyca.KDF.HKDF_SHA256, pyca.AEAD.CHACHA20_POLY1305)
    sealed = suite.encrypt(plain, public, info=b"keyquorum/v1/release\x00" + question)
    return sealed[: ENC[request.kem]], sealed[ENC[request.kem] :]
