# SPDX-License-Identifier: Apache-2.0
"""What a machine knows of itself and of its custodians (docs/custodian.md §7); no secret without its TPM."""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.model import network_address, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_TIME
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.model.network_address import Endpoint

VERSION = 1
WARNING = 90 * 86400  # seconds before its end in which a certificate is warned of
MAX_FILE = 128 * 1024
MAX_CUSTODIANS = 16
_MAX_CHAIN = 4
_MAX_MACHINE = 64


class KnownCustodian(Record):
    """A custodian at which this machine is enrolled, as `machine`.

    `key` is its Ed25519 signing key (32 bytes), `authority` the certificate that its own leads to, `sealing` the key
    that deposits are sealed to (SubjectPublicKeyInfo), `chain` what this machine shows, its own certificate first. All
    certificates in DER. `expires` is when this machine's own is over, in seconds since 1970, 0 where nobody noted it.
    """

    machine: str
    key: bytes
    authority: bytes
    addresses: tuple[Endpoint, ...]
    sealing: bytes
    chain: tuple[bytes, ...]
    expires: int = 0

    def warning(self, now: int) -> str:
        """Return what there is to say of its end at the instant `now`, "" for nothing."""
        if not self.expires or now < self.expires - WARNING:
            return ""
        days = (self.expires - now) // 86400
        return "is over" if now >= self.expires else f"is over in {days} days"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "machine": self.machine,
            "key": strict_json.to_base64(self.key),
            "ca": strict_json.to_base64(self.authority),
            "addresses": [str(endpoint) for endpoint in self.addresses],
            "sealing": strict_json.to_base64(self.sealing),
            "certificates": [strict_json.to_base64(one) for one in self.chain],
            "expires": self.expires,
        }


class MachineIdentity(Record):
    """The machine's keys, and its custodians by their ids.

    `key` is what the TPM holder keeps of the TLS key's seed (docs/holders-tpm.md §2); `attestation` is the kind of the
    attestation key, "ecc" or "rsa", and the SHA-256 in its Name.
    """

    key: dict[str, Any]
    attestation: tuple[str, bytes]
    custodians: tuple[tuple[str, KnownCustodian], ...] = ()

    def custodian(self, name: str) -> KnownCustodian | None:
        """Return a custodian by its id; None for one where this machine was not enrolled."""
        return dict(self.custodians).get(name)

    def knowing(self, name: str, custodian: KnownCustodian) -> MachineIdentity:
        """Return a copy with another custodian added or replaced."""
        return self.with_(custodians=tuple(sorted({**dict(self.custodians), name: custodian}.items())))

    def to_json(self) -> bytes:
        """Return the file's content."""
        kind, name = self.attestation
        return strict_json.serialise(
            {
                "version": VERSION,
                "key": self.key,
                "attestation": {"type": kind, "name": strict_json.to_base64(name)},
                "custodians": {name: custodian.to_json() for name, custodian in self.custodians},
            }
        )


def parse(data: bytes, what: str) -> MachineIdentity:
    """Read the file; `what` is its path in errors, which are `MalformedError`."""
    fields = Fields.read(data, what, MAX_FILE, MalformedError)
    fields.version(VERSION)
    attestation, given = fields.table("attestation"), fields.table("custodians")
    if len(given.names()) > MAX_CUSTODIANS:
        given.fail("", f"has more than {MAX_CUSTODIANS} custodians")
    found = MachineIdentity(
        key=fields.raw_table("key"),
        attestation=(attestation.choice("type", ("ecc", "rsa")), attestation.data("name", size=32)),
        custodians=tuple((name, _custodian(given, name)) for name in given.names()),
    )
    for fully_read in (attestation, fields):
        fully_read.finish()
    return found


def _custodian(given: Fields, name: str) -> KnownCustodian:
    if len(name) > network_address.MAX_NAME or not network_address.is_dns_name(name):
        given.fail("", "has a custodian whose name is no DNS name")
    fields = given.table(name)
    rows = fields.rows("certificates", most=_MAX_CHAIN)
    found = KnownCustodian(
        machine=fields.text("machine", longest=_MAX_MACHINE),
        key=fields.data("key", size=32),
        authority=fields.data("ca"),
        addresses=network_address.take(fields, "addresses"),
        sealing=fields.data("sealing"),
        chain=tuple(Fields({"certificate": row}, fields.what, MalformedError).data("certificate") for row in rows),
        expires=fields.integer("expires", 0, MAX_TIME) if fields.has("expires") else 0,
    )
    fields.finish()
    if not found.chain:
        fields.fail("certificates", "are missing")
    return found
