# SPDX-License-Identifier: Apache-2.0
"""Enclaves in memory: the custodian's real prover over evidence made under test roots, and a connection to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian import http_head
from keyquorum.custodian.decision import Client
from keyquorum.custodian.endpoints import failure
from keyquorum.custodian.http_head import Answer
from keyquorum.custodian.proving import Prover
from keyquorum.custodian.store import Machine
from keyquorum.errors import KeyquorumError
from keyquorum.evidence import hcl_policy, nitro_policy, reference_values, snp_policy
from keyquorum.evidence.bundle import Bundle, join_pcrs
from keyquorum.evidence.intel_reference import INTEL_TYPE
from keyquorum.holders.custodian_where import Where
from keyquorum.holders.enclave_proof import Proof
from keyquorum.holders.enclave_where import Attested, PolicyFile
from keyquorum.linux.tls_connection import Patience
from keyquorum.model import enclave_messages, release_messages
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.machine_identity import KnownCustodian, MachineIdentity
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import SIGNER
from unit.evidence import intel_maker, nitro_maker, snp_maker, test_hcl, tpm_maker
from unit.evidence.bundle_maker import collateral
from unit.evidence.tpm_maker import NOW, OWNER, selection, signed
from unit.model.test_machine_identity import KNOWN

NAME = "eu-1.example"
TLS_KEY, SEALING_KEY = b"the key of this connection", b"the sealing key"
CLIENT = Client(key=hashlib.sha256(b"client").digest(), name="web-1")


@cache
def snp_chain() -> tuple[bytes, ...]:
    """Made once: what signs at random makes another root each time."""
    return snp_maker.Scene().certificates()


@cache
def nitro_chain() -> tuple[bytes, ...]:
    """Made once."""
    return nitro_maker.Scene().chain()


def snp(nonce: bytes, **changes: Any) -> Bundle:
    scene = snp_maker.Scene(report={0x50: nonce} | changes.pop("report", {}), **changes)
    return Bundle(technology="snp", parts={"report": scene.signed_report(), "certificates": b"".join(snp_chain())})


def tdx(nonce: bytes, **changes: Any) -> Bundle:
    scene = intel_maker.Scene(body={"report_data": nonce} | changes.pop("body", {}), **changes)
    return Bundle(technology="tdx", parts={"quote": scene.quote(), "collateral": collateral(scene)})


def nitro(nonce: bytes, **changes: Any) -> Bundle:
    scene = nitro_maker.Scene(document={"nonce": nonce}, **changes)
    return Bundle(technology="nitro", parts={"document": scene.data(nitro_chain())})


def azure(nonce: bytes, **changes: Any) -> Bundle:
    scene = test_hcl.Scene(**changes)
    found, _, _ = scene.evidence()
    values = found.quote.pcrs
    attest = tpm_maker.Attest(
        signer=scene.ak.enrolled.qualified_name,
        digest=hashlib.sha256(b"".join(values.values())).digest(),
        selections=(selection("sha256", *values),),
        nonce=nonce,
    ).data
    parts = {"report": found.report, "attest": attest, "signature": scene.ak.sign(attest), "pcrs": join_pcrs(values)}
    parts |= {"log": found.quote.log, "certificates": b"".join(snp_chain())}
    return Bundle(technology="azure-snp", parts=parts)


def _snp_policies() -> dict[str, Any]:
    return {snp_policy.REFERENCE_TYPE: snp_maker.policy_table()}


def _azure_policies() -> dict[str, Any]:
    pcrs = {str(pcr): [value.hex()] for pcr, value in tpm_maker.values_of(tpm_maker.BOOT).items()}
    return _snp_policies() | {
        hcl_policy.REFERENCE_TYPE: test_hcl.TABLE,
        reference_values.REFERENCE_TYPE: tpm_maker.policy_table(pcrs),
    }


def _pem(root: bytes) -> bytes:
    return x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM)


MAKERS: dict[str, Callable[..., Bundle]] = {"snp": snp, "tdx": tdx, "nitro": nitro, "azure-snp": azure}
POLICIES: dict[str, Callable[[], dict[str, Any]]] = {
    "snp": _snp_policies,
    "tdx": lambda: {INTEL_TYPE: intel_maker.policy()},
    "nitro": lambda: {nitro_policy.REFERENCE_TYPE: nitro_maker.TABLE},
    "azure-snp": _azure_policies,
}
ROOTS: dict[str, Callable[[], bytes]] = {
    "snp": lambda: _pem(snp_chain()[2]),
    "tdx": lambda: intel_maker.root().public_bytes(Encoding.PEM),
    "nitro": lambda: _pem(nitro_chain()[0]),
    "azure-snp": lambda: _pem(snp_chain()[2]),
}


@dataclass
class Software:
    """A collector whose reports are made here; `changes` spoil one, `nonces` remembers what was asked for."""

    technology: str
    changes: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Bundle], Bundle] = lambda bundle: bundle
    ask_for: Callable[[bytes], bytes] = lambda nonce: nonce
    nonces: list[bytes] = field(default_factory=list)

    @property
    def by_tpm(self) -> bool:
        return self.technology.startswith("azure")

    def collect(self, nonce: bytes) -> Bundle:
        self.nonces.append(nonce)
        return self.spoil(MAKERS[self.technology](self.ask_for(nonce), **self.changes))


class Enclave:
    """A custodian's proving part, and the other end of a connection to it."""

    def __init__(self, collector: Any, **keys: Any) -> None:
        self.keys: dict[str, Any] = {"origin": NAME, "signer": SIGNER, "sealing": SEALING_KEY, "tls_key": TLS_KEY}
        self.keys |= keys
        sealing = SimpleNamespace(public=self.keys["sealing"])
        office: Any = SimpleNamespace(origin=self.keys["origin"], signer=self.keys["signer"], sealing=sealing)
        self.prover = Prover(collector=collector, office=office, tls_key=self.keys["tls_key"])
        self.machine: Machine | None = Machine("web-1", CLIENT.key, b"")
        self.change: Callable[[Answer], Answer] = lambda answer: answer
        self.requests: list[bytes] = []
        self._waiting = b""

    def machine_of(self, _key: bytes) -> Machine | None:
        """Stand for the store."""
        return self.machine

    def write(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        self.requests.append(body)
        assert head.startswith(b"POST /v1/attest ")
        try:
            store: Any = self
            envelope = self.prover.prove(store, CLIENT, enclave_messages.parse_request(body))
            answer = Answer(status=200, body=release_messages.answer_body(envelope))
        except KeyquorumError as error:
            answer = failure(error)
        self._waiting = http_head.serialise(self.change(answer), keep=True)

    def read(self, _patience: Patience) -> bytes:
        found, self._waiting = self._waiting, b""
        return found

    def peer_key(self) -> bytes:
        return TLS_KEY


class Owner:
    """What the owner has laid down on a machine: policies, roots, store; and who is asked with it."""

    def __init__(self, directory: str, technology: str, *, test_roots: bool = True) -> None:
        self.directory, self.policies = directory, list[PolicyFile]()
        for number, (kind, table) in enumerate(POLICIES[technology]().items()):
            path = self.write(f"policy-{number}.signed", signed(table, OWNER, kind))
            self.policies.append(PolicyFile(path=path, kind=kind, serial=int(table["serial"])))
        roots = ROOTS[technology]()
        path = self.write("roots.pem", roots) if test_roots else ""
        self.attested = Attested(
            signer=OWNER.public.raw,
            policies=tuple(self.policies),
            collateral=os.path.join(directory, "store"),
            test_roots=path,
            test_roots_hash=hashlib.sha256(roots).digest() if test_roots else b"",
        )
        self.where = Where(
            custodian=NAME,
            key=SIGNER.public.raw,
            authority=b"ca",
            addresses=KNOWN.addresses,
            bank="sha256",
            pcrs=(7,),
        )
        self.machine = MachineIdentity(key={"version": 1}, attestation=("ecc", bytes(32))).knowing(
            NAME, KnownCustodian(**{**_fields(KNOWN), "sealing": SEALING_KEY})
        )

    def write(self, name: str, data: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def demand(self, enclave: Enclave, fragment: FragmentName = FRAGMENT, now: int = NOW, **changes: Any) -> None:
        """Have it prove itself; raises what a holder would."""
        proof = Proof(self.where, self.attested.with_(**changes), fragment, lambda: now)
        connection: Any = enclave
        proof.demand(connection, self.machine, Patience(deadline=0.0))


def _fields(known: KnownCustodian) -> dict[str, Any]:
    return {name: getattr(known, name) for name in ("machine", "key", "authority", "addresses", "sealing", "chain")}
