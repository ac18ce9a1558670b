# SPDX-License-Identifier: Apache-2.0
"""Reading what Azure's paravisor leaves in NV index 0x01400001 (docs/attestation-azure.md §2).

A header, a hardware report, and JSON ("runtime data") whose hash is in the hardware report. The JSON is what vouches
for the attestation key of the virtual TPM; it counts once its hash does.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import snp_report, tpm_wire
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from typing import Any

MAX_REPORT = 4096
SNP, TDX = 2, 4
AK_ATTRIBUTES = 0x50472  # restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA
_SIGNATURE, _VERSIONS, _REQUEST = b"HCLA", (1, 2), 2
_HEADER = struct.Struct("<4s7I")  # signature, version, size of all, request, status, three reserved
_DATA = struct.Struct("<5I")  # size of this part, version, kind of report, kind of hash, size of the JSON
_SHA256 = 1
_START = _HEADER.size + snp_report.SIZE
_AK = "HCLAkPub"
_EXPONENT = "AQAB"  # 65537
_MODULUS = 256
_WHAT = "the runtime data"


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """A parsed report. `kind` is `SNP` or `TDX`; `runtime` are the exact bytes of the JSON."""

    kind: int
    hardware: bytes
    runtime: bytes

    @property
    def report_data(self) -> bytes:
        """What the hardware report must carry: SHA-256 of the JSON, then zeros."""
        return hashlib.sha256(self.runtime).digest().ljust(64, b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeData:
    """What the paravisor says: the attestation key as TPMT_PUBLIC, how the machine is set up, what the guest wrote."""

    ak: bytes
    secure_boot: bool
    tpm: bool
    console: bool
    machine: str
    user_data: bytes


def parse(data: bytes, what: str) -> HclReport:
    """Read a report, with or without the zeros that fill its NV index; raises `TamperingError`."""
    if not _START + _DATA.size <= len(data) <= MAX_REPORT:
        raise TamperingError(what, "size", f"{len(data)} bytes")
    signature, version, size, request, status, *reserved = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or version not in _VERSIONS:
        raise TamperingError(what, "header", f"{signature.hex()} of version {version}")
    if request != _REQUEST or status or any(reserved):
        raise TamperingError(what, "header", f"request {request}, status {status}")
    part, inner, kind, hashing, length = _DATA.unpack_from(data, _START)
    end = _START + _DATA.size + length
    if inner != 1 or hashing != _SHA256 or kind not in {SNP, TDX}:
        raise TamperingError(what, "data", f"version {inner}, kind {kind}, hash {hashing}")
    if part != _DATA.size + length or size != end or end > len(data):
        raise TamperingError(what, "data", f"{length} bytes of JSON in {part} of {size}")
    if any(data[end:]):
        raise TamperingError(what, "data", "something after its end")
    hardware = bytes(data[_HEADER.size : _START])
    return HclReport(kind=kind, hardware=hardware, runtime=bytes(data[_START + _DATA.size : end]))


def parse_runtime(data: bytes) -> RuntimeData:
    """Read the JSON; raises `TamperingError`. Fields that are not known here are left: new ones come with time."""
    fields = Fields.read(data, _WHAT, MAX_REPORT, TamperingError)
    machine = fields.table("vm-configuration")
    return RuntimeData(
        ak=_key(fields),
        secure_boot=machine.flag("secure-boot"),
        tpm=machine.flag("tpm-enabled"),
        console=machine.flag("console-enabled", default=True),
        machine=machine.text("vmUniqueId", longest=64),
        user_data=_user_data(fields),
    )


def _key(fields: Fields) -> bytes:
    rows = [fields.row("keys", at, row) for at, row in enumerate(fields.rows("keys", most=8))]
    named = [row for row in rows if row.text("kid") == _AK]
    if len(named) != 1:
        fields.fail("keys", f"must have one {_AK}")
    (found,) = named
    uses: list[Any] = found.rows("key_ops", most=4)
    if found.choice("kty", ("RSA",)) != "RSA" or found.text("e") != _EXPONENT or uses != ["sign"]:
        fields.fail("keys", f"{_AK} is no RSA key for signing with the exponent 65537")
    return public_area(_base64url(found, "n"))


def _base64url(fields: Fields, name: str) -> bytes:
    text = fields.text(name, longest=400)
    try:
        found = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        found = b""
    encoded = strict_json.to_base64(found).rstrip("=").replace("+", "-").replace("/", "_")
    if len(found) != _MODULUS or encoded != text or found[0] < 0x80:
        fields.fail(name, f"is no modulus of {8 * _MODULUS} bits in base64url")
    return found


def public_area(modulus: bytes) -> bytes:
    """Return the TPMT_PUBLIC (TPM 2.0 Part 2 §12.2.4) that Azure's attestation keys have.

    The JSON has only the modulus. That everything else is so is checked by the quote, which has the Qualified Name.
    """
    head = struct.pack(">HHIH", tpm_wire.RSA, tpm_wire.SHA256, AK_ATTRIBUTES, 0)  # no policy
    scheme = struct.pack(">HHH", tpm_wire.NULL, tpm_wire.RSASSA, tpm_wire.SHA256)
    return head + scheme + struct.pack(">HIH", 8 * _MODULUS, 0, len(modulus)) + modulus


def _user_data(fields: Fields) -> bytes:
    """Take the 64 bytes that the guest wrote to NV index 0x01400002; old paravisors have none."""
    text = fields.text("user-data", default="")
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if text and len(found) != 64:
        fields.fail("user-data", "is not 64 bytes in hexadecimal")
    return found
