# SPDX-License-Identifier: Apache-2.0
"""Reading an attestation document of AWS Nitro Enclaves: COSE_Sign1 around a map (docs/attestation-nitro.md §2).

Nothing in it counts before its signature and the chain of its certificate do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import cbor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

MAX_DOCUMENT = 16 * 1024
PCR_SIZE = 48
MAX_PCRS = 32
_SIGN1_TAG = 18
_PROTECTED = bytes.fromhex("a1013822")  # {1: -35}, ES384 and nothing else
_SIGNATURE = 96
_MAX_CERTIFICATE = 1024
_MAX_BUNDLE = 8
_MAX_MODULE = 256
_WHAT = "the document"
_DEMANDED = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL = {"public_key": (1, 1024), "user_data": (0, 512), "nonce": (0, 512)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A COSE_Sign1 (RFC 9052 §4.2): what was signed, and the signature as r ‖ s."""

    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The Sig_structure, over which the signature is."""
        parts = cbor.byte_string(_PROTECTED) + cbor.byte_string(b"") + cbor.byte_string(self.payload)
        return b"\x84\x6aSignature1" + parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed document. `timestamp` in milliseconds since 1970; `bundle` has the root first; None: not there."""

    module: str
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    bundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def open_envelope(data: bytes) -> Envelope:
    """Read the envelope; `TamperingError` says "header" in `where` if only its headers are wrong."""
    found = cbor.parse(data, _WHAT, MAX_DOCUMENT, _SIGN1_TAG)
    if not isinstance(found, list) or len(found) != 4:
        raise TamperingError(_WHAT, "", "is no COSE_Sign1")
    protected, unprotected, payload, signature = found
    if protected != _PROTECTED or unprotected != {}:
        raise TamperingError(_WHAT, "header", "something else than ES384")
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != _SIGNATURE:
        raise TamperingError(_WHAT, "", f"has no payload, or a signature that is not of {_SIGNATURE} bytes")
    return Envelope(payload=payload, signature=signature)


def parse(payload: bytes) -> Document:
    """Read what was signed; raises `TamperingError`."""
    found = cbor.parse(payload, _WHAT, MAX_DOCUMENT)
    if not isinstance(found, dict):
        _fail("", "is no map")
    missing = [name for name in _DEMANDED if name not in found]
    unknown = sorted(str(name) for name in found if name not in _DEMANDED and name not in _OPTIONAL)
    if missing or unknown:
        _fail(missing[0] if missing else "", "is missing" if missing else f"{len(unknown)} fields are not known here")
    module, timestamp = found["module_id"], found["timestamp"]
    if not isinstance(module, str) or not 0 < len(module) <= _MAX_MODULE or not module.isprintable():
        _fail("module_id", "is no printable text")
    if found["digest"] != "SHA384":
        _fail("digest", "is not SHA384")
    if not isinstance(timestamp, int) or not 0 < timestamp < 1 << 53:
        _fail("timestamp", "is no instant")
    certificate, *bundle = _certificates(found)
    optional = {name: _some_bytes(found, name, *bounds) for name, bounds in _OPTIONAL.items()}
    return Document(
        module=module,
        timestamp=timestamp,
        pcrs=_pcrs(found["pcrs"]),
        certificate=certificate,
        bundle=tuple(bundle),
        **optional,
    )


def _fail(where: str, problem: str) -> NoReturn:
    raise TamperingError(_WHAT, where, problem)


def _pcrs(found: Any) -> dict[int, bytes]:
    if not isinstance(found, dict) or not 0 < len(found) <= MAX_PCRS:
        _fail("pcrs", f"must be a map of 1 to {MAX_PCRS} values")
    for number, value in found.items():
        if not isinstance(number, int) or not 0 <= number < MAX_PCRS:
            _fail("pcrs", "has a name that is no number of a PCR")
        if not isinstance(value, bytes) or len(value) != PCR_SIZE:
            _fail("pcrs", f"PCR {number} has no value of {PCR_SIZE} bytes")
    return found


def _certificates(found: dict[Any, Any]) -> list[bytes]:
    bundle = found["cabundle"]
    if not isinstance(bundle, list) or not 0 < len(bundle) <= _MAX_BUNDLE:
        _fail("cabundle", f"must be a list of 1 to {_MAX_BUNDLE} certificates")
    all_of_them = [found["certificate"], *bundle]
    if not all(isinstance(one, bytes) and 0 < len(one) <= _MAX_CERTIFICATE for one in all_of_them):
        _fail("cabundle", f"has something else than certificates of at most {_MAX_CERTIFICATE} bytes")
    return all_of_them


def _some_bytes(found: dict[Any, Any], name: str, least: int, most: int) -> bytes | None:
    value = found.get(name)
    if value is None or (isinstance(value, bytes) and least <= len(value) <= most):
        return value
    _fail(name, f"must be null or {least} to {most} bytes")
