# SPDX-License-Identifier: Apache-2.0
"""Where fragments live: one file for each kind of holder, all behind the contract in `contract`."""

from __future__ import annotations

from importlib import import_module

from keyquorum.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.contract import Holder

KINDS = {
    "disk": "keyquorum.holders.disk",
    "tpm": "keyquorum.holders.tpm",
    "pkcs11": "keyquorum.holders.pkcs11",
    "passphrase": "keyquorum.holders.passphrase",
    "sheet": "keyquorum.holders.sheet",
    "custodian": "keyquorum.holders.custodian",
    "enclave": "keyquorum.holders.enclave",
}

REMOTE = frozenset({"custodian", "enclave"})  # asked over the network: after all others, and only while they are needed


def load(kind: str) -> Holder:
    """Import the one holder of this kind; a kind nobody needs costs nothing.

    Raises `UnavailableError` where this kind cannot be used: the set may be of a newer program, or the boot image of
    an older one. The other holders are asked all the same (I3).
    """
    if kind not in KINDS:
        raise UnavailableError(f"this version knows no holder of kind {kind}", "update keyquorum")
    try:
        holder: Holder = import_module(KINDS[kind]).HOLDER
    except ImportError as error:
        raise UnavailableError(
            f"holders of kind {kind} cannot be used here: the module {error.name} is missing",
            "in a boot image: update-initramfs -u",
        ) from None
    return holder
