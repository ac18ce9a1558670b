# SPDX-License-Identifier: Apache-2.0
"""Proving to machines what a custodian runs, where it runs in an enclave (docs/holders-enclave.md §4, §5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keyquorum.errors import KeyquorumError, RefusedError, UnavailableError
from keyquorum.evidence import bundle, enclave_binding
from keyquorum.evidence.bundle import TECHNOLOGIES, Bundle
from keyquorum.evidence.enclave_binding import EnclaveBinding
from keyquorum.linux import attester
from keyquorum.linux.tpm_attester import AzureAttester
from keyquorum.model import enclave_messages

if TYPE_CHECKING:
    from typing import Any

    from keyquorum.custodian.decision import Client, Office
    from keyquorum.custodian.store import Store
    from keyquorum.model.enclave_messages import EvidenceQuestion

AZURE = "azure"
_AZURE_PCRS = tuple(range(16))  # all that nobody may reset
_LARGE = ("log", "crl", "certificates", "collateral")  # what a verifier can do without or has; in this order


class EvidenceError(KeyquorumError):
    """The device that vouches for this machine gives nothing now."""


class Collector(Protocol):
    """Who gives evidence of this machine."""

    @property
    def by_tpm(self) -> bool:
        """Whether the nonce is a TPM's, of 32 bytes, and not 64 bytes of report data."""

    def collect(self, nonce: bytes) -> Bundle:
        """Return evidence that carries the nonce; raises `UnavailableError`."""


class _Source:
    """A device by its name."""

    def __init__(self, device: attester.Attester, *, by_tpm: bool) -> None:
        self._device, self.by_tpm = device, by_tpm

    def collect(self, nonce: bytes) -> Bundle:
        return self._device.collect(nonce)


def collector(source: str, tpm_device: str) -> Collector:
    """Return who gives evidence: "azure", or a device of `linux.attester`."""
    if source == AZURE:
        return _Source(AzureAttester(tpm_device, "sha256", _AZURE_PCRS), by_tpm=True)
    return _Source(attester.devices()[source], by_tpm=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prover:
    """Proves to enrolled machines what runs here. `tls_key` is the server's, SubjectPublicKeyInfo in DER."""

    collector: Collector
    office: Office
    tls_key: bytes

    def prove(self, store: Store, client: Client, question: EvidenceQuestion) -> dict[str, Any]:
        """Return signed evidence; raises `RefusedError` for who is no enrolled machine, `EvidenceError`."""
        machine = store.machine_of(client.key)
        if machine is None or machine.revoked or machine.name != client.name or not client.ours:
            raise RefusedError("no evidence for this client: it is no enrolled machine")
        office = self.office
        binding = EnclaveBinding(
            nonce=question.nonce,
            custodian=office.origin,
            signing_key=office.signer.public.raw,
            tls_key=self.tls_key,
            sealing_key=office.sealing.public,
            fragment=question.fragment,
        )
        by_tpm = self.collector.by_tpm
        try:
            found = self.collector.collect(
                (enclave_binding.qualifying_data if by_tpm else enclave_binding.report_data)(binding)
            )
        except UnavailableError as error:
            raise EvidenceError(f"no evidence can be had now: {error.message}") from None
        payload = enclave_messages.payload(office.origin, question, bundle.serialise(_fitting(found)))
        return office.signer.sign(enclave_messages.EVIDENCE_TYPE, payload)


def _fitting(given: Bundle) -> Bundle:
    """Return evidence without what makes it too large for a message; raises `EvidenceError` if that is not enough."""
    parts = dict(given.parts)
    optional = [name for name in _LARGE if name in TECHNOLOGIES[given.technology].optional]
    while sum(map(len, parts.values())) > enclave_messages.MAX_PARTS:
        if not optional:
            raise EvidenceError("the evidence is too large for a message")
        parts.pop(optional.pop(0), None)
    return Bundle(technology=given.technology, parts=parts)
