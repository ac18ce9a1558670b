# SPDX-License-Identifier: Apache-2.0
"""Certificates and collateral in a directory (docs/attestation-fetch.md §2)."""

from __future__ import annotations

import os

from keyquorum.errors import TamperingError
from keyquorum.evidence import bundle, snp_certificates
from keyquorum.evidence.wanted import ChipWanted, PlatformWanted, wanted
from keyquorum.linux import atomic_file
from keyquorum.model import holder_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.evidence.bundle import Bundle

DIRECTORY = holder_options.COLLATERAL
_MOST = 8 * 1024 * 1024


class Store:
    """The directory. A file is there whole or not at all; anybody may have written it."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory

    def get(self, name: str) -> bytes:
        """Return a file, b"" if it is not there."""
        return atomic_file.read(os.path.join(self._directory, name), _MOST)

    def put(self, name: str, data: bytes) -> None:
        """Keep a file."""
        atomic_file.write(os.path.join(self._directory, name), data, 0o644)

    def names(self) -> list[str]:
        """Return the names of the files that are there."""
        try:
            return sorted(os.listdir(self._directory))
        except OSError:
            return []

    def completed(self, given: Bundle) -> Bundle:
        """Return evidence with what the store has and it lacks; as it was where nothing is known to be wanted."""
        try:
            need = wanted(given)
            if isinstance(need, ChipWanted):
                return self._with_list(self._with_certificates(given, need), need)
            if isinstance(need, PlatformWanted) and not given.part("collateral"):
                found = self.get(need.name)
                return given.with_part("collateral", found) if found else given
        except TamperingError:  # the verifier says what is wrong with it
            return given
        return given

    def _with_certificates(self, given: Bundle, need: ChipWanted) -> Bundle:
        """Add leaf and authorities, or the authorities alone to the only certificate that a host gave."""
        present = bundle.split_certificates(given.part("certificates"))
        leaf = present[0] if len(present) == 1 else self.get(need.leaf) if need.leaf and not present else b""
        chain = self.get(need.chain)
        if not leaf or not chain:
            return given
        return given.with_part("certificates", leaf + b"".join(snp_certificates.from_pem(chain, "chain")))

    def _with_list(self, given: Bundle, need: ChipWanted) -> Bundle:
        found = b"" if given.part("crl") else self.get(need.crl)
        return given.with_part("crl", found) if found else given
