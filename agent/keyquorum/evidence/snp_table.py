# SPDX-License-Identifier: Apache-2.0
"""The table of certificates that a host gives with a report of SEV-SNP (docs/attestation-collect.md §3).

GHCB specification, extended guest request. It is the host's word: the certificates in it are believed by their chain.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate

MAX_TABLE = 64 * 1024
_ENTRY = struct.Struct("<16sII")  # GUID in the order of its text, offset, length
_END = bytes(16)
_KINDS = {
    "63da758de6644564adc5f4b93be8accd": "vcek",
    "a8074bc2a25a483eaae639c045a0b8a1": "vlek",
    "4ab7b379bbac4fe4a02f05aef327c782": "ask",
    "c0b406a4a803495297433fb6014cd0ae": "ark",
    "92f81bc358114d3d97ffd19f88dc67ea": "crl",
}
_LEAVES = ("vcek", "vlek")
_PEM = b"-----BEGIN "
_WHAT = "the host's table of certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTable:
    """What a host gave, in DER; b"" for what it did not give."""

    leaf: bytes
    intermediate: bytes
    root: bytes
    revocations: bytes

    @property
    def chain(self) -> bytes:
        """The part `certificates` of a bundle: leaf, intermediate, root, one after the other."""
        return self.leaf + self.intermediate + self.root


def is_table(data: bytes) -> bool:
    """Say whether something looks like a table, and not like certificates."""
    return data[:16].hex() in _KINDS


def parse(data: bytes) -> CertificateTable:
    """Read a table; raises `TamperingError`. An empty one gives nothing."""
    if len(data) > MAX_TABLE:
        raise TamperingError(_WHAT, "", f"{len(data)} bytes are more than the {MAX_TABLE} allowed")
    entries = _entries(data)
    found: dict[str, bytes] = {}
    for guid, offset, size in entries:
        kind = _KINDS.get(guid.hex())
        if not (len(entries) + 1) * _ENTRY.size <= offset <= offset + size <= len(data):
            raise TamperingError(_WHAT, guid.hex(), f"{size} bytes at {offset} are not behind the entries")
        if kind is None:
            continue
        if kind in found:
            raise TamperingError(_WHAT, kind, "is there twice")
        found[kind] = _der(data[offset : offset + size], kind)
    leaves = [kind for kind in _LEAVES if kind in found]
    if len(leaves) > 1:
        raise TamperingError(_WHAT, "", "has certificates of a chip's and of a provider's key")
    return CertificateTable(
        leaf=found[leaves[0]] if leaves else b"",
        intermediate=found.get("ask", b""),
        root=found.get("ark", b""),
        revocations=found.get("crl", b""),
    )


def _entries(data: bytes) -> list[tuple[bytes, int, int]]:
    found: list[tuple[bytes, int, int]] = []
    if not any(data):
        return found
    for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, size = _ENTRY.unpack_from(data, at)
        if guid == _END:
            if offset or size:
                raise TamperingError(_WHAT, "", "has an entry without a GUID")
            return found
        found.append((guid, offset, size))
    raise TamperingError(_WHAT, "", "has no end")


def _der(data: bytes, kind: str) -> bytes:
    if kind == "crl" or not data.startswith(_PEM):
        return data
    found = certificate.from_pem(data.rstrip(b"\x00"), _WHAT, MAX_TABLE)
    if len(found) != 1:
        raise TamperingError(_WHAT, kind, f"has {len(found)} certificates")
    return found[0]
