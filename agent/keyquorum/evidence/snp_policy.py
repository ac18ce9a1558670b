# SPDX-License-Identifier: Apache-2.0
"""Reference values of SEV-SNP: what a report may say, signed, versioned and expiring (docs/attestation-snp.md §5).

No field has a default: whatever a policy does not demand is written in it, and shown as waived in every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import signed_policy
from keyquorum.evidence.signed_policy import WHAT
from keyquorum.evidence.snp_report import PRODUCTS, VERSIONS, component_names
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE_TYPE = "application/vnd.keyquorum.snp-reference.v1+json"
ANY = "any"
SIGNERS = ("vcek", "vlek")
# Bits of the guest's policy (AMD 56860, offset 0x08): which value is the safe one, and how a policy asks for it.
GUEST_BITS = {
    "smt": (16, False, "forbidden"),
    "migration": (18, False, "forbidden"),
    "debug": (19, False, "forbidden"),
    "single-socket": (20, True, "required"),
    "cxl": (21, False, "forbidden"),
    "aes-256-xts": (22, True, "required"),
    "rapl-off": (23, True, "required"),
    "ciphertext-hiding": (24, True, "required"),
    "page-swap-off": (25, True, "required"),
}
# Bits of PLATFORM_INFO (offset 0x40). Bit 1, TSME, says nothing about a guest's memory and is not judged.
PLATFORM_BITS = {
    "smt": (0, False, "off"),
    "ecc": (2, True, "on"),
    "rapl-off": (3, True, "on"),
    "ciphertext-hiding": (4, True, "on"),
    "alias-check": (5, True, "on"),
}
KNOWN_PLATFORM = 0b111111
_MAX_VALUES = 256
_LISTS = {"measurement": 48, "host-data": 32, "family-id": 16, "image-id": 16, "id-key": 48, "author-key": 48}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What a product must have: the lowest level of every TCB component, and mitigations as a mask (None: any)."""

    tcb: Mapping[str, int]
    mitigations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReference:
    """A policy that has been verified. A list that is None takes anything; `demanded` are bits by their check's name.

    `values` are allow-lists of fields of a report. `unknown_platform` are bits of PLATFORM_INFO that this program
    does not know and the policy nevertheless takes.
    """

    name: str
    serial: int
    issued: int
    expires: int
    versions: frozenset[int]
    signers: frozenset[str]
    providers: frozenset[str] | None
    products: Mapping[str, Product]
    provisional: bool
    vmpl: frozenset[int]
    guest_svn: int
    abi: tuple[int, int]
    values: Mapping[str, frozenset[bytes] | None]
    demanded: frozenset[str]
    unknown_platform: int
    chips: frozenset[bytes] | None
    denied_chips: frozenset[bytes]


def parse(payload: bytes) -> SnpReference:
    """Read the payload of an envelope that was verified; raises `TamperingError`."""
    fields, header = signed_policy.begin(payload)
    guest, platform = fields.table("guest-policy"), fields.table("platform")
    abi = (guest.integer("abi-major", 0, 255), guest.integer("abi-minor", 0, 255))
    unknown = int.from_bytes(platform.hexadecimal("unknown", 8), "big")
    chips = fields.table("chips")
    found = SnpReference(
        **header,
        versions=_numbers(fields, "report-versions", VERSIONS),
        signers=_signers(fields),
        providers=_providers(fields),
        products=_products(fields.table("products")),
        provisional=fields.choice("provisional-firmware", ("forbidden", ANY)) == ANY,
        vmpl=_numbers(fields, "vmpl", (0, 1, 2, 3)),
        guest_svn=fields.integer("guest-svn", 0, (1 << 32) - 1),
        abi=abi,
        values={name: _values(fields, name, size) for name, size in _LISTS.items()},
        demanded=_bits(guest, GUEST_BITS, "snp.policy") | _bits(platform, PLATFORM_BITS, "snp.platform"),
        unknown_platform=unknown & ~KNOWN_PLATFORM,
        chips=_values(chips, "listed", 64),
        denied_chips=_digests(chips, "denied", 64),
    )
    for table in (guest, platform, chips, fields):
        table.finish()
    if found.values["measurement"] is None and found.values["id-key"] is None:
        fields.fail("measurement", 'is "any", and so is id-key: such a policy would trust every guest')
    return found


def _bits(fields: Fields, bits: Mapping[str, tuple[int, bool, str]], prefix: str) -> frozenset[str]:
    chosen = {name: fields.choice(name, (word, ANY)) for name, (_, _, word) in bits.items()}
    return frozenset(f"{prefix}.{name}" for name, word in chosen.items() if word != ANY)


def _numbers(fields: Fields, name: str, known: tuple[int, ...]) -> frozenset[int]:
    found = fields.rows(name, most=len(known))
    if not found or any(isinstance(number, bool) or number not in known for number in found):
        fields.fail(name, f"must be some of {', '.join(map(str, known))}")
    return frozenset(found)


def _signers(fields: Fields) -> frozenset[str]:
    found = fields.rows("signers", most=len(SIGNERS))
    if not found or any(signer not in SIGNERS for signer in found):
        fields.fail("signers", f"must be some of {', '.join(SIGNERS)}")
    return frozenset(found)


def _providers(fields: Fields) -> frozenset[str] | None:
    value = fields.take("vlek-providers")
    if value == ANY:
        return None
    rows = Fields({"": value}, WHAT, TamperingError, "vlek-providers").rows("", most=_MAX_VALUES)
    return frozenset(Fields({"provider": row}, WHAT, TamperingError).text("provider") for row in rows)


def _products(fields: Fields) -> dict[str, Product]:
    found = {}
    for name in fields.names():
        if name not in PRODUCTS:
            fields.fail(name if name.isprintable() else "", f"is none of {', '.join(PRODUCTS)}")
        row = fields.table(name)
        mitigations = row.take("mitigations")
        if mitigations != ANY:
            one = Fields({"mitigations": mitigations}, WHAT, TamperingError, row.path)
            mitigations = int.from_bytes(one.hexadecimal("mitigations", 8), "big")
        tcb = {component: row.integer(component, 0, 255) for component in component_names(name)}
        found[name] = Product(tcb=tcb, mitigations=None if mitigations == ANY else mitigations)
        row.finish()
    if not found:
        fields.fail("", "names no product: such a policy trusts nothing")
    return found


def _values(fields: Fields, name: str, size: int) -> frozenset[bytes] | None:
    """Take "any", or a list of values; an empty list takes nothing."""
    value = fields.take(name)
    if value == ANY:
        return None
    return _digests(Fields({name: value}, WHAT, TamperingError, fields.path), name, size)


def _digests(fields: Fields, name: str, size: int) -> frozenset[bytes]:
    rows = fields.rows(name, most=_MAX_VALUES)
    return frozenset(Fields({name: row}, WHAT, TamperingError, fields.path).hexadecimal(name, size) for row in rows)
