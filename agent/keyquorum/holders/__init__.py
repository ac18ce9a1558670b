# SPDX-License-Identifier: Apache-2.0
"""Where fragments live: one file for each kind of holder, all behind the contract in `contract`."""

from __future__ import annotations

from importlib import import_module

from keyquorum.errors import TamperingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.contract import Holder

KINDS = {
    "disk": "keyquorum.holders.disk",
    "tpm": "keyquorum.holders.tpm",
    "pkcs11": "keyquorum.holders.pkcs11",
    "passphrase": "keyquorum.holders.passphrase",
    "sheet": "keyquorum.holders.sheet",
}


def load(kind: str) -> Holder:
    """Import the one holder of this kind; a kind nobody needs costs nothing."""
    if kind not in KINDS:
        raise TamperingError("set", "fragments", f"holder kind {kind!r} is not known here")
    holder: Holder = import_module(KINDS[kind]).HOLDER
    return holder
