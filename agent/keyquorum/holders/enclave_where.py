# SPDX-License-Identifier: Apache-2.0
"""What the signed set keeps for an enclave: a custodian's `where`, and its judges (docs/holders-enclave.md §2)."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.holders import custodian_where
from keyquorum.holders.custodian_where import Where
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import MAX_PATH, MOST_APPRAISALS
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_MOST_SERIAL = 1 << 53
_MAX_TYPE = 128
LOUD = "proven by TEST ROOTS, which no maker of processors vouches for"


class PolicyFile(Record):
    """An appraisal policy: where the file is, its payload type, and the lowest serial that counts."""

    path: str
    kind: str
    serial: int


class Attested(Record):
    """By what the evidence is judged. `signer` is the Ed25519 key (32 bytes) of whoever signs the policies.

    `test_roots` is the path of certificates that are believed instead of the makers', with the file's SHA-256 in
    `test_roots_hash`; "" and b"" for the makers'.
    """

    signer: bytes
    policies: tuple[PolicyFile, ...]
    collateral: str
    test_roots: str = ""
    test_roots_hash: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """Return the form that goes into the set."""
        roots = {"path": self.test_roots, "sha256": self.test_roots_hash.hex()} if self.test_roots else None
        return {
            "signer": strict_json.to_base64(self.signer),
            "policies": [{"path": one.path, "type": one.kind, "serial": one.serial} for one in self.policies],
            "collateral": self.collateral,
            "test_roots": roots,
        }

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what must be there to judge."""
        return (*(one.path for one in self.policies), *((self.test_roots,) if self.test_roots else ()))

    @property
    def warning(self) -> str:
        """What is told with every verdict: nothing, but for test roots."""
        return LOUD if self.test_roots else ""


def to_json(where: Where, attested: Attested) -> dict[str, Any]:
    """Return the whole `where`."""
    return {**where.to_json(), "attested": attested.to_json()}


def parse(table: Mapping[str, Any]) -> tuple[Where, Attested]:
    """Read `where`; raises `TamperingError` naming the field."""
    rest = {name: value for name, value in table.items() if name != "attested"}
    fields = Fields(table.get("attested"), "set", TamperingError, "where.attested")
    policies = tuple(
        _policy(fields.row("policies", index, row))
        for index, row in enumerate(fields.rows("policies", most=MOST_APPRAISALS))
    )
    if not policies:
        fields.fail("policies", "is empty: everything would be trusted")
    signer, collateral = fields.data("signer", size=32), fields.text("collateral", longest=MAX_PATH)
    roots = fields.table("test_roots") if fields.has("test_roots") else None
    if roots is None:
        fields.take("test_roots")
        fields.finish()
        return custodian_where.parse(rest), Attested(signer=signer, policies=policies, collateral=collateral)
    path, digest = roots.text("path", longest=MAX_PATH), roots.hexadecimal("sha256", 32)
    for fully_read in (roots, fields):
        fully_read.finish()
    attested = Attested(
        signer=signer, policies=policies, collateral=collateral, test_roots=path, test_roots_hash=digest
    )
    return custodian_where.parse(rest), attested


def _policy(row: Fields) -> PolicyFile:
    found = PolicyFile(
        path=row.text("path", longest=MAX_PATH),
        kind=row.text("type", longest=_MAX_TYPE),
        serial=row.integer("serial", 1, _MOST_SERIAL),
    )
    row.finish()
    return found
