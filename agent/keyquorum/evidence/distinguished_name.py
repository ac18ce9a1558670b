# SPDX-License-Identifier: Apache-2.0
"""Names in certificates, as bytes to compare and as text to show (RFC 5280 §4.1.2.4, RFC 4514).

`cryptography` complains of names that are longer than X.520 allows by a Python warning, which an application cannot
take for one certificate only. A large cloud's endorsement certificates have such names. Names decide nothing here
beyond being equal, so they are taken from the DER, whose shape `cryptography` has checked when it read the whole.
"""

from __future__ import annotations

from functools import lru_cache

from keyquorum.errors import TamperingError
from keyquorum.evidence import der

_TAGGED = 0xA0
_WHAT = "a name"
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


def of_certificate(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return of a certificate in DER what is signed, and the names of issuer and subject; raises `TamperingError`."""
    _, signed, content = _signed(data)
    fields = _fields(content, _TAGGED, 5)
    return signed, fields[2][1], fields[4][1]  # serial number, signature, issuer, validity, subject


def of_list(data: bytes) -> bytes:
    """Return the name of whoever issued a revocation list in DER; raises `TamperingError`."""
    return _fields(_signed(data)[2], der.INTEGER, 2)[1][1]  # signature, issuer


def _signed(data: bytes) -> der.Element:
    _, _, content = der.first(data, _WHAT)
    return der.first(content, _WHAT)


def _fields(signed: bytes, version: int, least: int) -> list[der.Element]:
    """Return the fields of what is signed, without its version, which has the tag `version` if it is there."""
    fields = der.elements(signed, _WHAT, _NAMES_END)
    found = fields[1:] if fields and fields[0][0] == version else fields
    if len(found) < least:
        raise TamperingError(_WHAT, "", "is not where it should be")
    return found


@lru_cache(maxsize=256)
def text(name: bytes) -> str:
    """Return a name for people, most particular part first; "no name" for an empty one. Raises `TamperingError`.

    Remembered: each certificate has its issuer's name once more, and the makers' come with every piece of evidence.
    """
    parts = []
    for _, _, attributes in der.elements(der.first(name, _WHAT)[2], _WHAT):
        for _, _, attribute in der.elements(attributes, _WHAT):
            pair = der.elements(attribute, _WHAT, 2)
            if len(pair) != 2:
                raise TamperingError(_WHAT, "", "has an attribute without a value")
            (_, _, kind), (tag, _, value) = pair
            shown = value.decode("utf-16-be" if tag == der.BMP else "utf-8", "replace")
            parts.append(f"{_ATTRIBUTES.get(kind, kind.hex())}={shown}")
    return ",".join(reversed(parts)) or "no name"
