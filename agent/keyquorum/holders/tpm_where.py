# SPDX-License-Identifier: Apache-2.0
"""What the signed set keeps for a TPM holder: `where` (docs/holders-tpm.md §2)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import FACTS, PCR_BANKS
from keyquorum.record import Record
from keyquorum.tpm2 import banks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = 1
SALT_SIZE = 16
_MAX_PRIVATE = 512
_MAX_PUBLIC = 1024


class SignedPolicy(Record):
    """PCRs whose values a key may sign: its TPM public area, and the SHA-256 by which systemd knows it."""

    pcrs: tuple[int, ...]
    signer: bytes
    fingerprint: bytes


class Facts(Record):
    """What was measured into `pcr` at enrolment, by name in the order of `holder_options.FACTS`."""

    pcr: int
    values: dict[str, str]

    def measured(self) -> bytes:
        """Return what is hashed into the PCR (docs/holders-tpm.md §6)."""
        return canonical(self.values)


class Where(Record):
    """Everything needed to unseal again.

    `srk` is the SHA-256 in the storage root key's Name and `srk_kind` "ecc" or "rsa"; `public` and `private` are the
    sealed object; `pcrs` the enrolled values of literally bound PCRs; `salt` that of the PIN, empty without one.
    """

    srk: bytes
    srk_kind: str
    public: bytes
    private: bytes
    bank: str
    pcrs: dict[int, bytes]
    signed: SignedPolicy | None = None
    facts: Facts | None = None
    salt: bytes = b""

    def bound(self) -> dict[int, bytes]:
        """Return the values of all literally bound PCRs, that of the facts among them."""
        found = dict(self.pcrs)
        if self.facts is not None:
            found[self.facts.pcr] = predicted(self.bank, self.facts.values)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the form that goes into the set; absent parts are left out to keep the token small."""
        table: dict[str, Any] = {
            "version": VERSION,
            "srk": {"type": self.srk_kind, "name": strict_json.to_base64(self.srk)},
            "public": strict_json.to_base64(self.public),
            "private": strict_json.to_base64(self.private),
            "bank": self.bank,
        }
        if self.pcrs:
            table["pcrs"] = {str(pcr): strict_json.to_base64(value) for pcr, value in self.pcrs.items()}
        if self.signed is not None:
            table["signed"] = {
                "pcrs": list(self.signed.pcrs),
                "key": strict_json.to_base64(self.signed.signer),
                "pkfp": strict_json.to_base64(self.signed.fingerprint),
            }
        if self.facts is not None:
            table["facts"] = {"pcr": self.facts.pcr, **self.facts.values}
        if self.salt:
            table["pin"] = strict_json.to_base64(self.salt)
        return table


def canonical(facts: Mapping[str, str]) -> bytes:
    """Return the one way to write facts down before they are hashed."""
    return b"keyquorum/v1/facts" + b"".join(f"\x00{name}={facts[name]}".encode() for name in FACTS if name in facts)


def predicted(bank: str, facts: Mapping[str, str]) -> bytes:
    """Return the value of a PCR that was zero and into which only these facts were measured."""
    return banks.extend(bank, bytes(banks.SIZES[bank]), banks.digest(bank, canonical(facts)))


def parse(table: Mapping[str, Any]) -> Where:
    """Read `where`; raises `TamperingError` naming the field."""
    fields = Fields(table, "set", TamperingError, "where")
    fields.version(VERSION)
    srk = fields.table("srk")
    bank = fields.choice("bank", PCR_BANKS)
    found = Where(
        srk_kind=srk.choice("type", ("ecc", "rsa")),
        srk=srk.data("name", size=32),
        public=fields.data("public", longest=_MAX_PUBLIC),
        private=fields.data("private", longest=_MAX_PRIVATE),
        bank=bank,
        pcrs=_values(fields.table("pcrs"), banks.SIZES[bank]) if fields.has("pcrs") else {},
        signed=_signed(fields.table("signed")) if fields.has("signed") else None,
        facts=_facts(fields.table("facts")) if fields.has("facts") else None,
        salt=fields.data("pin", size=SALT_SIZE) if fields.has("pin") else b"",
    )
    for fully_read in (srk, fields):
        fully_read.finish()
    if found.facts is not None and found.facts.pcr in found.pcrs:
        fields.fail("facts", f"are in PCR {found.facts.pcr}, which is bound by its value too")
    return found


def _values(fields: Fields, size: int) -> dict[int, bytes]:
    names = {str(pcr): pcr for pcr in range(banks.PCRS)}
    found = {}
    for name in fields.names():
        if name not in names:
            fields.fail(str(name)[:40], "is no PCR")
        found[names[name]] = fields.data(name, size=size)
    return dict(sorted(found.items()))


def _signed(fields: Fields) -> SignedPolicy:
    pcrs = fields.rows("pcrs", most=banks.PCRS)
    if not pcrs or any(type(pcr) is not int or not 0 <= pcr < banks.PCRS for pcr in pcrs):
        fields.fail("pcrs", "must be PCR numbers")
    if pcrs != sorted(set(pcrs)):
        fields.fail("pcrs", "must be in order, each once")
    found = SignedPolicy(
        pcrs=tuple(pcrs), signer=fields.data("key", longest=_MAX_PUBLIC), fingerprint=fields.data("pkfp", size=32)
    )
    fields.finish()
    return found


def _facts(fields: Fields) -> Facts:
    values = {name: fields.text(name, longest=128) for name in FACTS if fields.has(name)}
    if not values:
        fields.fail("", "names no fact")
    found = Facts(pcr=fields.integer("pcr", 0, banks.PCRS - 1), values=values)
    fields.finish()
    return found
