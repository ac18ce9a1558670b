# SPDX-License-Identifier: Apache-2.0
"""One file with all that a machine has to say for itself (docs/attestation-command.md §2).

A bundle is a stranger's word like all evidence. Its technology says how its parts are read, never by whom it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import TamperingError
from keyquorum.evidence import der
from keyquorum.evidence.tpm_wire import MAX_DIGEST, Reader
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
MAX_BUNDLE = 8 * 1024 * 1024
_MAX_PART = 4 * 1024 * 1024
_MAX_PCRS = 32 * (2 + MAX_DIGEST)
_MAX_CERTIFICATES = 64 * 1024
_WHAT = "the bundle of evidence"


class Parts(NamedTuple):
    """The names of what evidence of a technology consists of; `main` is the one that is told from its bytes."""

    main: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]


_QUOTE = ("attest", "signature", "pcrs")
TECHNOLOGIES: dict[str, Parts] = {
    "snp": Parts("report", ("report",), ("certificates", "crl")),
    "tdx": Parts("quote", ("quote",), ("log", "collateral")),
    "sgx": Parts("quote", ("quote",), ("collateral",)),
    "nitro": Parts("document", ("document",), ()),
    "tpm": Parts("attest", _QUOTE, ("log",)),
    "azure-snp": Parts("report", ("report", *_QUOTE), ("log", "certificates", "crl")),
    "azure-tdx": Parts("report", ("report", "td-quote", *_QUOTE), ("log", "collateral")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Evidence of one technology, in parts as they were collected."""

    technology: str
    parts: Mapping[str, bytes]

    def part(self, name: str) -> bytes:
        """Return a part, b"" for one that is not there."""
        return self.parts.get(name, b"")

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts without which nothing can be judged."""
        return tuple(name for name in TECHNOLOGIES[self.technology].needed if name not in self.parts)

    def with_part(self, name: str, data: bytes) -> Bundle:
        """Return the bundle with a part instead of its own; raises `TamperingError` where it does not belong."""
        known = TECHNOLOGIES[self.technology]
        if name not in (*known.needed, *known.optional):
            raise TamperingError(_WHAT, name, f"has no place in evidence of {self.technology}")
        return Bundle(technology=self.technology, parts={**self.parts, name: data})


def parse(data: bytes, what: str = _WHAT) -> Bundle:
    """Read a bundle; raises `TamperingError`."""
    fields = Fields.read(data, what, MAX_BUNDLE, TamperingError)
    fields.version(VERSION)
    technology = fields.choice("technology", tuple(TECHNOLOGIES))
    table = fields.table("parts")
    known = TECHNOLOGIES[technology]
    parts = {name: table.data(name, longest=_MAX_PART) for name in known.needed}
    parts |= {name: table.data(name, longest=_MAX_PART) for name in known.optional if table.has(name)}
    table.finish()
    fields.finish()
    return Bundle(technology=technology, parts=parts)


def serialise(bundle: Bundle) -> bytes:
    """Write a bundle."""
    parts = {name: strict_json.to_base64(data) for name, data in bundle.parts.items()}
    return strict_json.serialise({"version": VERSION, "technology": bundle.technology, "parts": parts})


def join_pcrs(pcrs: Mapping[int, bytes]) -> bytes:
    """Write values of PCRs, each with its number and size before it."""
    return b"".join(bytes((number, len(value))) + value for number, value in sorted(pcrs.items()))


def split_pcrs(data: bytes) -> dict[int, bytes]:
    """Read values of PCRs; raises `TamperingError`, also where they are not in ascending order."""
    reader, found = Reader(data, "the values of PCRs", _MAX_PCRS), dict[int, bytes]()
    left, last = len(data), -1
    while left:
        number, size = reader.number(1), reader.number(1)
        if not last < number < 32 or size > MAX_DIGEST:
            reader.fail(f"PCR {number} of {size} bytes")
        found[number] = reader.take(size)
        left, last = left - 2 - size, number
    return found


def split_certificates(data: bytes) -> tuple[bytes, ...]:
    """Read certificates in DER, one after the other; raises `TamperingError`."""
    if len(data) > _MAX_CERTIFICATES:
        raise TamperingError("the certificates", "", f"{len(data)} bytes are more than {_MAX_CERTIFICATES}")
    return tuple(whole for _, whole, _ in der.elements(data, "the certificates"))
