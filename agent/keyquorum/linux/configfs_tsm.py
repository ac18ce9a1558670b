# SPDX-License-Identifier: Apache-2.0
"""Reports through configfs-tsm: SEV-SNP and TDX by one interface of the kernel (docs/attestation-collect.md §2).

Documentation/ABI/testing/configfs-tsm of the kernel. Each request has a directory of its own; `generation` counts the
writes to it, so that an answer to somebody else's question is noticed.
"""

from __future__ import annotations

import os
import secrets

from keyquorum.errors import TamperingError, UnavailableError
from keyquorum.evidence import snp_table
from keyquorum.evidence.bundle import Bundle
from keyquorum.linux import measurement_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "/sys/kernel/config/tsm/report"
CCEL = "/sys/firmware/acpi/tables/data/CCEL"
SIZE = 64
_MOST = 128 * 1024
_MAX_LOG = 1024 * 1024
_TURNS = 3
_WRITES = 1  # of a request: inblob


class ConfigfsTsm:
    """The kernel's reports. `make` and `remove` are for directories, which configfs fills and empties by itself."""

    def __init__(
        self,
        base: str = BASE,
        log: str = CCEL,
        make: Callable[[str], None] = os.mkdir,
        remove: Callable[[str], None] = os.rmdir,
    ) -> None:
        self._base, self._log, self._make, self._remove = base, log, make, remove

    def present(self) -> bool:
        """Say whether the kernel has it, and something behind it."""
        return os.path.isdir(self._base)

    def collect(self, nonce: bytes) -> Bundle:
        """Return evidence with these 64 bytes; raises `UnavailableError`."""
        if len(nonce) != SIZE:
            raise UnavailableError(f"reports carry {SIZE} bytes, and not {len(nonce)}")
        for _ in range(_TURNS):
            found = self._ask(nonce)
            if found is not None:
                return found
        raise UnavailableError(f"another process keeps writing to {self._base}")

    def _ask(self, nonce: bytes) -> Bundle | None:
        """Ask once; return None if the answer may be to another question."""
        directory = os.path.join(self._base, f"keyquorum-{os.getpid()}-{secrets.token_hex(8)}")
        try:
            self._make(directory)
        except OSError as error:
            raise UnavailableError(f"{self._base} gives no report: {error.strerror}") from None
        try:
            return self._talk(directory, nonce)
        except (OSError, ValueError) as error:
            told = error.strerror if isinstance(error, OSError) else error
            raise UnavailableError(f"{self._base} gives no report: {told}") from None
        finally:
            self._forget(directory)

    def _forget(self, directory: str) -> None:
        try:
            self._remove(directory)
        except OSError:  # it is empty of secrets, and goes with the next boot
            return

    def _talk(self, directory: str, nonce: bytes) -> Bundle | None:
        before = self._generation(directory)
        descriptor = os.open(os.path.join(directory, "inblob"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, nonce)
        finally:
            os.close(descriptor)
        provider = self._read(directory, "provider").strip().decode("ascii", "replace")
        report = self._read(directory, "outblob")
        found = self._bundle(provider, report, directory)
        return found if self._generation(directory) == before + _WRITES else None

    def _bundle(self, provider: str, report: bytes, directory: str) -> Bundle:
        if provider == "sev_guest":
            return Bundle(technology="snp", parts={"report": report, **certificates(self._optional(directory))})
        if provider == "tdx_guest":
            log = measurement_log.read(self._log, _MAX_LOG)
            return Bundle(technology="tdx", parts={"quote": report} | ({"log": log} if log else {}))
        raise UnavailableError(f"{self._base} has the provider {provider[:32]!r}, which is not known here")

    def _generation(self, directory: str) -> int:
        return int(self._read(directory, "generation"))

    def _optional(self, directory: str) -> bytes:
        try:
            return self._read(directory, "auxblob")
        except OSError:  # the host gave none
            return b""

    def _read(self, directory: str, name: str) -> bytes:
        pieces, size = [], 0
        with open(os.path.join(directory, name), "rb", buffering=0) as file:
            while size <= _MOST and (piece := file.read(_MOST + 1 - size)):
                pieces.append(piece)
                size += len(piece)
        if size > _MOST:
            raise ValueError(f"{name} has more than {_MOST} bytes")
        return b"".join(pieces)


def certificates(table: bytes) -> dict[str, bytes]:
    """Return the parts of a bundle that a host's table gives: none of what cannot be read.

    A leaf without the authorities above it is given alone: those are AMD's to give to everybody.
    """
    try:
        found = snp_table.parse(table)
    except TamperingError:  # the report is good without; certificates can come from elsewhere
        return {}
    whole = bool(found.intermediate and found.root)
    parts = {"certificates": found.chain if whole else found.leaf} if found.leaf else {}
    return parts | ({"crl": found.revocations} if found.revocations else {})
