# SPDX-License-Identifier: Apache-2.0
"""What the signed set keeps for a custodian: `where` (docs/custodian.md §7)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import network_address, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import PCR_BANKS
from keyquorum.record import Record
from keyquorum.tpm2 import banks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.model.network_address import Endpoint

VERSION = 1
_MAX_CERTIFICATE = 4096


class Where(Record):
    """Which custodian, how to reach it, and what its evidence is to be of.

    `custodian` is its id, which is also the DNS name in its certificate; `key` its Ed25519 signing key (32 bytes);
    `authority` the certificate (DER) that its certificate leads to; `bank` and `pcrs` what is quoted to it.
    """

    custodian: str
    key: bytes
    authority: bytes
    addresses: tuple[Endpoint, ...]
    bank: str
    pcrs: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that goes into the set."""
        return {
            "version": VERSION,
            "custodian": self.custodian,
            "key": strict_json.to_base64(self.key),
            "ca": strict_json.to_base64(self.authority),
            "addresses": [str(endpoint) for endpoint in self.addresses],
            "bank": self.bank,
            "pcrs": list(self.pcrs),
        }


def parse(table: Mapping[str, Any]) -> Where:
    """Read `where`; raises `TamperingError` naming the field."""
    fields = Fields(table, "set", TamperingError, "where")
    fields.version(VERSION)
    found = Where(
        custodian=fields.text("custodian", longest=network_address.MAX_NAME),
        key=fields.data("key", size=32),
        authority=fields.data("ca", longest=_MAX_CERTIFICATE),
        addresses=network_address.take(fields, "addresses"),
        bank=fields.choice("bank", PCR_BANKS),
        pcrs=_pcrs(fields),
    )
    fields.finish()
    if not network_address.is_dns_name(found.custodian):
        fields.fail("custodian", "is no DNS name")
    return found


def _pcrs(fields: Fields) -> tuple[int, ...]:
    rows = fields.rows("pcrs", most=banks.PCRS)
    if not rows or any(type(pcr) is not int or not 0 <= pcr < banks.PCRS for pcr in rows):
        fields.fail("pcrs", "must be PCR numbers")
    if rows != sorted(set(rows)):
        fields.fail("pcrs", "must be in order, each once")
    return tuple(rows)
