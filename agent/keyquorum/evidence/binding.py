# SPDX-License-Identifier: Apache-2.0
"""What evidence is bound to: one request, by one machine's one-time key, for one fragment (docs/attestation.md §4).

Both ends compute it, the attester also in a boot; so this file imports nothing that a boot does not have.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.native import sodium
from keyquorum.record import Record

_DOMAIN = b"keyquorum/v1/report-data"
MIN_NONCE = 32
_MAX_NONCE = 64
_MAX_VERIFIER = 256
_SET_ID = 16
_UUID = 36
_MAX_KEY = 4096
_MAX_EXPORTER = 64


class Binding(Record):
    """All that an answer is for. Sizes in bytes: `nonce` 32 to 64, `set_id` 16, `exporter` at most 64.

    `key` is the requester's one-time key as SubjectPublicKeyInfo in DER. `exporter` is the TLS exporter of the channel
    that the evidence travels on (RFC 9266), empty where there is no TLS.
    """

    nonce: bytes
    verifier: str
    volume: str
    set_id: bytes
    index: int
    epoch: int
    key: bytes
    exporter: bytes = b""


def report_data(binding: Binding) -> bytes:
    """Return the 64 bytes that evidence carries; raises `MalformedError` for what cannot be bound.

    Every part has its length before it, so that no two bindings give the same bytes.
    """
    _check(binding)
    parts = (
        _DOMAIN,
        binding.nonce,
        binding.verifier.encode(),
        binding.volume.encode(),
        binding.set_id + bytes((binding.index,)),
        binding.epoch.to_bytes(4, "big"),
        binding.key,
        binding.exporter,
    )
    return digest_of(parts)


def digest_of(parts: tuple[bytes, ...]) -> bytes:
    """Return SHA-512 of parts, each with its length in 4 bytes before it."""
    return sodium.sha512(b"".join([len(part).to_bytes(4, "big") + part for part in parts]))


def qualifying_data(binding: Binding) -> bytes:
    """Return the 32 bytes for a TPM, whose extraData has no room for 64: SHA-256 of `report_data`."""
    return sodium.sha256(report_data(binding))


def _check(binding: Binding) -> None:
    rules = (
        ("nonce", MIN_NONCE <= len(binding.nonce) <= _MAX_NONCE),
        ("verifier", 0 < len(binding.verifier.encode()) <= _MAX_VERIFIER),
        ("volume", len(binding.volume) == _UUID and binding.volume == binding.volume.lower()),
        ("set_id", len(binding.set_id) == _SET_ID),
        ("index", 1 <= binding.index <= 255),
        ("epoch", 1 <= binding.epoch < 1 << 32),
        ("key", 0 < len(binding.key) <= _MAX_KEY),
        ("exporter", len(binding.exporter) <= _MAX_EXPORTER),
    )
    for name, holds in rules:
        if not holds:
            raise MalformedError("what the evidence is bound to", name, "has a wrong size or value")
