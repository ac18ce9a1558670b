# SPDX-License-Identifier: Apache-2.0
"""Quotes of this machine's TPM, and what Azure's paravisor left in it (docs/attestation-collect.md §6)."""

from __future__ import annotations

import time
from contextlib import contextmanager

from keyquorum.errors import RefusedError, TamperingError, UnavailableError
from keyquorum.evidence import hcl_report
from keyquorum.evidence.bundle import Bundle, join_pcrs
from keyquorum.linux import measurement_log
from keyquorum.linux.azure_metadata import AzureMetadata
from keyquorum.linux.measurement_log import FIRMWARE_LOG
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.tpm2 import attestation, nv
from keyquorum.tpm2.client import Tpm
from keyquorum.tpm2.wire import OWNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HCL_INDEX, HCL_KEY = 0x01400001, 0x81000003
MAX_NONCE = 64  # of extraData, for a TPM whose largest hash is SHA-512
_MAX_LOG = 1024 * 1024
_SECONDS = 30.0


class TpmAttester:
    """A TPM by its device, with the handle of the attestation key and the PCRs that are to be quoted."""

    def __init__(self, device: str, key: int, bank: str, pcrs: tuple[int, ...], log: str = FIRMWARE_LOG) -> None:
        self._device, self._key, self._bank, self._pcrs, self._log = device, key, bank, pcrs, log

    def collect(self, nonce: bytes) -> Bundle:
        """Return a quote that carries the nonce, with values and log; raises `UnavailableError`."""
        with _opened(self._device) as tpm:
            parts = self._quoted(tpm, nonce)
        return Bundle(technology="tpm", parts=parts)

    def _quoted(self, tpm: Tpm, nonce: bytes) -> dict[str, bytes]:
        if not 0 < len(nonce) <= MAX_NONCE:
            raise UnavailableError(f"a TPM carries 1 to {MAX_NONCE} bytes, and not {len(nonce)}")
        try:
            taken = attestation.quote(tpm, self._key, nonce, self._bank, self._pcrs)
        except RefusedError as error:
            raise UnavailableError(f"the TPM at {self._device} gives no quote: {error.message}") from None
        parts = {"attest": taken.attest, "signature": taken.signature, "pcrs": join_pcrs(dict(taken.pcrs))}
        log = measurement_log.read(self._log, _MAX_LOG)
        return parts | ({"log": log} if log else {})


class AzureAttester(TpmAttester):
    """The virtual TPM of an Azure machine: its quotes, and the paravisor's report."""

    def __init__(
        self,
        device: str,
        bank: str,
        pcrs: tuple[int, ...],
        log: str = FIRMWARE_LOG,
        metadata: AzureMetadata | None = None,
    ) -> None:
        super().__init__(device, HCL_KEY, bank, pcrs, log)
        self._metadata = AzureMetadata() if metadata is None else metadata

    def collect(self, nonce: bytes) -> Bundle:
        """Return report, quote and what the cloud's metadata service adds; raises `UnavailableError`."""
        with _opened(self._device) as tpm:
            try:
                report = nv.read(tpm, HCL_INDEX, OWNER)
                found = hcl_report.parse(report, "the paravisor's report")
            except (RefusedError, TamperingError) as error:
                raise UnavailableError(f"the TPM at {self._device} has no report of Azure's: {error.message}") from None
            parts = {"report": report, **self._quoted(tpm, nonce)}
        if found.kind == hcl_report.TDX:
            quote = self._metadata.td_quote(found.hardware)
            return Bundle(technology="azure-tdx", parts=parts | {"td-quote": quote})
        certificates = self._metadata.certificates()
        return Bundle(technology="azure-snp", parts=parts | ({"certificates": certificates} if certificates else {}))


@contextmanager
def _opened(device: str) -> Iterator[Tpm]:
    """Open a TPM that answers within half a minute or not at all."""
    with TpmDevice(device, time.monotonic() + _SECONDS) as opened, Tpm(opened) as tpm:
        yield tpm
