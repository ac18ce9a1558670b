# SPDX-License-Identifier: Apache-2.0
"""What this machine can say for itself, whatever it is: one contract, and finding who can fulfil it.

docs/attestation-collect.md §1. An attester judges nothing; it gives a bundle or says why it cannot.
"""

from __future__ import annotations

from keyquorum.errors import UnavailableError
from keyquorum.linux.configfs_tsm import ConfigfsTsm
from keyquorum.linux.nitro_module import NitroModule
from keyquorum.linux.sev_guest import SevGuest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from keyquorum.evidence.bundle import Bundle

    class Attester(Protocol):
        """Somebody who gives evidence."""

        def collect(self, nonce: bytes) -> Bundle:
            """Return evidence that carries the nonce; raises `UnavailableError`."""

    class Device(Attester, Protocol):
        """An attester that needs to be told nothing."""

        def present(self) -> bool:
            """Say whether there is such a device."""


def devices() -> dict[str, Device]:
    """Return those that can be asked without being told anything, best first."""
    return {"tsm": ConfigfsTsm(), "sev-guest": SevGuest(), "nitro": NitroModule()}


def collect_first(known: Mapping[str, Device], nonce: bytes) -> Bundle:
    """Ask the first device that is there and answers; raises `UnavailableError` with what each one said."""
    said = []
    for name, device in known.items():
        if device.present():
            try:
                return device.collect(nonce)
            except UnavailableError as error:
                said.append(f"{name}: {error.message}")
    raise UnavailableError(
        "; ".join(said) or f"this machine has none of {', '.join(known)}",
        "" if said else "a TPM is asked by --from tpm",
    )
