# SPDX-License-Identifier: Apache-2.0
"""What an operator hands over for a machine that is to be enrolled: `custodian enroll-machine --json` (docs/cli.md)."""

from __future__ import annotations

import binascii

from keyquorum.errors import MalformedError
from keyquorum.model import network_address, strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.fragment import MAX_TIME
from keyquorum.model.network_address import NAME, Endpoint
from keyquorum.native import sodium
from keyquorum.record import Record

VERSION = 1
MAX_FILE = 16 * 1024
USUAL_PORT = 8443
_COMMAND = "custodian enroll-machine"
_TOKEN = 16
_MAX_MACHINE = 64
_MAX_PEM = 8192
_ED25519 = 1  # signed-note's type of a key that signs text
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Invitation(Record):
    """Which custodian, by what it is known, under which name the machine goes there, and the one-time token.

    `key` is the custodian's signing key (32 bytes), `authority` the certificate (DER) that its own leads to; `expires`
    is in seconds since 1970. `addresses` is where it is usually found, unless somebody knows better.
    """

    custodian: str
    key: bytes
    authority: bytes
    addresses: tuple[Endpoint, ...]
    machine: str
    token: bytes
    expires: int

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"<Invitation to {self.custodian} for {self.machine}>"


def parse(data: bytes, what: str) -> Invitation:
    """Read the file; `what` is its path in errors, which are `MalformedError`."""
    fields = Fields.read(data, what, MAX_FILE, MalformedError)
    fields.version(VERSION)
    fields.choice("command", (_COMMAND,))
    fields.integer("exit_code", 0, 0)
    custodian = fields.text("custodian", longest=network_address.MAX_NAME)
    if not network_address.is_dns_name(custodian):
        fields.fail("custodian", "is no DNS name, by which its certificate could be checked")
    found = Invitation(
        custodian=custodian,
        key=_key(fields, custodian),
        authority=_certificate(fields),
        addresses=_addresses(fields, custodian),
        machine=fields.text("machine", longest=_MAX_MACHINE),
        token=fields.hexadecimal("token", _TOKEN),
        expires=fields.integer("expires", 0, MAX_TIME),
    )
    fields.finish()
    return found


def _addresses(fields: Fields, custodian: str) -> tuple[Endpoint, ...]:
    """Read where the custodian is found; an operator who named no place means its name and the usual port."""
    given = fields.rows("addresses", most=network_address.MAX_ADDRESSES, default=True)
    if not given:
        return (Endpoint(host=custodian, port=USUAL_PORT, kind=NAME),)
    return network_address.take(Fields({"addresses": given}, fields.what, MalformedError), "addresses")


def _key(fields: Fields, custodian: str) -> bytes:
    """Read a verifier key, `name+id+key` (c2sp.org/signed-note), of the custodian itself."""
    name, _, rest = fields.text("log_key", longest=512).partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        raw = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, ValueError):
        fields.fail("log_key", "is not name+id+key")
    if strict_json.to_base64(raw) != encoded:
        fields.fail("log_key", "is not canonical base64")
    digest = sodium.sha256(name.encode() + b"\n" + raw)[:4]
    if name != custodian or len(raw) != 33 or raw[0] != _ED25519 or digest.hex() != key_id:
        fields.fail("log_key", f"is no Ed25519 key of {custodian}")
    return raw[1:]


def _certificate(fields: Fields) -> bytes:
    value = fields.take("authority")
    lines = value.split("\n") if isinstance(value, str) and len(value) <= _MAX_PEM else []
    if len(lines) < 4 or (lines[0], *lines[-2:]) != (_BEGIN, _END, ""):
        fields.fail("authority", "is no certificate in PEM")
    try:
        return binascii.a2b_base64("".join(lines[1:-2]), strict_mode=True)
    except (binascii.Error, ValueError):
        fields.fail("authority", "is not base64")
