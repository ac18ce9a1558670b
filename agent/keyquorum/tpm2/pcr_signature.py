# SPDX-License-Identifier: Apache-2.0
"""Signed PCR policies in systemd's tpm2-pcr-signature.json (docs/holders-tpm.md §5); imported only for such."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import PCR_BANKS
from keyquorum.record import Record

MAX_FILE = 256 * 1024
_MAX_ENTRIES = 256
_MAX_SIGNATURE = 1024


class SignedPolicy(Record):
    """One entry: the digest of a PolicyPCR over `pcrs` of `bank`, and what the key `fingerprint` signed of it."""

    bank: str
    pcrs: tuple[int, ...]
    fingerprint: bytes
    digest: bytes
    signature: bytes


def parse(data: bytes, what: str) -> list[SignedPolicy]:
    """Read a signature file; raises `TamperingError`. Nothing in it is trusted before a TPM verified it.

    The format is systemd's and grows: names that are not known here are passed over.
    """
    table = Fields.read(data, what, MAX_FILE, TamperingError)
    found = []
    for bank in PCR_BANKS:
        for index, row in enumerate(table.rows(bank, most=_MAX_ENTRIES, default=True)):
            entry = table.row(bank, index, row)
            pcrs = entry.rows("pcrs", most=24)
            if not all(type(pcr) is int and 0 <= pcr < 24 for pcr in pcrs):
                entry.fail("pcrs", "must be PCR numbers")
            found.append(
                SignedPolicy(
                    bank=bank,
                    pcrs=tuple(sorted(pcrs)),
                    fingerprint=entry.hexadecimal("pkfp", 32),
                    digest=entry.hexadecimal("pol", 32),
                    signature=entry.data("sig", longest=_MAX_SIGNATURE),
                )
            )
    return found
