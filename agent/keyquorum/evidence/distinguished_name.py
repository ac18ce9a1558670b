# SPDX-License-Identifier: Apache-2.0
"""Names in certificates, as bytes to compare and as text to show (RFC 5280 §4.1.2.4, RFC 4514).

`cryptography` complains of names that are longer than X.520 allows by a Python warning, which an application cannot
take for one certificate only. A large cloud's endorsement certificates have such names. Names decide nothing here
beyond being equal, so they are taken from the DER, whose shape `cryptography` has checked when it read the whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

_INTEGER, _TAGGED = 0x02, 0xA0
_BMP = 0x1E
_REMEMBERED = 32  # one verification asks for each name of a chain several times
_NAMES_END = 6  # fields up to the last name: version, serial number, signature, issuer, validity, subject
_ATTRIBUTES = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
    b"\x55\x04\x05": "serialNumber",
}


def _values(data: bytes, most: int | None = None) -> list[tuple[int, bytes, bytes]]:
    """Take the values of a DER constructed type apart into (tag, whole, content); only the first of them if `most`."""
    found: list[tuple[int, bytes, bytes]] = []
    at = 0
    while at + 2 <= len(data) and len(found) != most:
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
        if start + size > len(data):
            raise TamperingError("a name", f"byte {at}", "is longer than what it is in")
        found.append((tag, data[at : start + size], data[start : start + size]))
        at = start + size
    return found


def issuer_and_subject(certificate: Certificate) -> tuple[bytes, bytes]:
    """Return the two names of a certificate in DER."""
    return _names(certificate.tbs_certificate_bytes)


@lru_cache(maxsize=_REMEMBERED)
def _names(whole: bytes) -> tuple[bytes, bytes]:
    fields = _fields(whole, _TAGGED)
    return fields[2][1], fields[4][1]  # serial number, signature, issuer, validity, subject


def issuer_of_list(revocations: CertificateRevocationList) -> bytes:
    """Return the name of whoever issued a revocation list, in DER."""
    return _fields(revocations.tbs_certlist_bytes, _INTEGER)[1][1]  # signature, issuer


def _fields(whole: bytes, version: int) -> list[tuple[int, bytes, bytes]]:
    """Return the fields of what is signed, without its version, which has the tag `version` if it is there."""
    fields = _values(_values(whole, 1)[0][2], _NAMES_END)
    return fields[1:] if fields[0][0] == version else fields


@lru_cache(maxsize=_REMEMBERED)
def text(name: bytes) -> str:
    """Return a name for people, most particular part first; "no name" for an empty one."""
    parts = []
    for _, _, attributes in _values(_values(name)[0][2]):
        for _, _, attribute in _values(attributes):
            (_, _, kind), (tag, _, value) = _values(attribute)[:2]
            shown = value.decode("utf-16-be" if tag == _BMP else "utf-8", "replace")
            parts.append(f"{_ATTRIBUTES.get(kind, kind.hex())}={shown}")
    return ",".join(reversed(parts)) or "no name"
