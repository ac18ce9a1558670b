# SPDX-License-Identifier: Apache-2.0
"""A maker of Nitro enclaves: root, intermediates, certificates of three hours, documents, with one thing wrong at will."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.evidence import cbor, nitro_appraisal, nitro_policy
from keyquorum.evidence.nitro_appraisal import NitroChallenge
from keyquorum.evidence.result import AttestationResult
from keyquorum.evidence.signed_policy import SignedPolicy
from unit.evidence.ca_maker import authority, name, usage
from unit.evidence.tpm_maker import NONCE, NOW, OWNER, private, signed

START = dt.datetime.fromtimestamp(NOW, dt.UTC) - dt.timedelta(minutes=1)
END = START + dt.timedelta(hours=3)
PCRS = {number: hashlib.sha384(bytes((number,))).digest() for number in (0, 1, 2, 4)} | {
    number: bytes(48) for number in range(16) if number not in {0, 1, 2, 4}
}
TABLE: dict[str, Any] = {
    "version": 1, "name": "enclaves", "serial": 4, "issued": 0, "expires": 1 << 40,
    "max-age": 60, "max-skew": 5, "debug": "forbidden",
    "pcrs": {str(number): [PCRS[number].hex()] for number in (0, 1, 2, 3, 4)} | {"8": "any"},
}  # fmt: skip


def encode(value: Any) -> bytes:
    """Write CBOR as the enclave's hypervisor does."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bytes):
        return cbor.byte_string(value)
    if isinstance(value, str):
        data = value.encode()
        return bytes((cbor.byte_string(data)[0] + 0x20,)) + cbor.byte_string(data)[1:]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(0x20, -1 - value)
    if isinstance(value, dict):
        return _head(0xA0, len(value)) + b"".join(encode(key) + encode(item) for key, item in value.items())
    return _head(0x80, len(value)) + b"".join(encode(item) for item in value)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major | value,))
    size = 1 if value < 256 else 2 if value < 1 << 16 else 4 if value < 1 << 32 else 8
    return bytes((major | {1: 24, 2: 25, 4: 26, 8: 27}[size],)) + value.to_bytes(size, "big")


def key(number: int, curve: str = "p384") -> ec.EllipticCurvePrivateKey:
    found = private(curve, number)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def certificate(
    issuer: str,
    subject: str,
    signer: int,
    public: Any,
    extensions: list[Any],
    *,
    end: dt.datetime = END,
    start: dt.datetime = START,
    algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    builder = x509.CertificateBuilder(name(issuer), name(subject), public, 7, start, end)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key(signer), algorithm or hashes.SHA384()).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # any hash, also a wrong one


SIGNS: list[Any] = [(x509.BasicConstraints(ca=False, path_length=None), True), (usage(digital_signature=True), True)]


@dataclass(kw_only=True)
class Scene:
    """An enclave as its policy wants it; change one thing and appraise."""

    leaf: dict[str, Any] = field(default_factory=dict)
    middle: dict[str, Any] = field(default_factory=dict)
    root: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    drop: str = ""
    pcrs: dict[Any, Any] = field(default_factory=dict)
    envelope: dict[int, Any] = field(default_factory=dict)  # members of COSE_Sign1 by their place
    payload: bytes | None = None
    tag: bytes = b""
    after: bytes = b""
    signer: int = 63
    policy: dict[str, Any] = field(default_factory=dict)
    challenge: dict[str, Any] = field(default_factory=dict)
    now: int = NOW

    def chain(self) -> tuple[bytes, ...]:
        """Return root, two intermediates and leaf."""
        root = {
            "issuer": "root",
            "subject": "root",
            "signer": 60,
            "public": key(60).public_key(),
            "extensions": authority(),
        }
        first = root | {"subject": "region", "public": key(61).public_key(), "extensions": authority(depth=1)}
        second = {
            "issuer": "region",
            "subject": "host",
            "signer": 61,
            "public": key(62).public_key(),
            "extensions": authority(depth=0),
        }
        leaf = {
            "issuer": "host",
            "subject": "enclave",
            "signer": 62,
            "public": key(63).public_key(),
            "extensions": SIGNS,
        }
        made: list[dict[str, Any]] = [root | self.root, first, second | self.middle, leaf | self.leaf]
        return tuple(certificate(**one) for one in made)

    def fields(self, chain: tuple[bytes, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "module_id": "i-0123-enc4567",
            "digest": "SHA384",
            "timestamp": NOW * 1000 - 500,
            "pcrs": PCRS | self.pcrs,
            "certificate": chain[-1],
            "cabundle": list(chain[:-1]),
            "public_key": b"a public key",
            "user_data": b"user data",
            "nonce": NONCE,
        }
        found |= self.document
        return {name: value for name, value in found.items() if name != self.drop}

    def data(self, chain: tuple[bytes, ...]) -> bytes:
        payload = self.payload if self.payload is not None else encode(self.fields(chain))
        protected = bytes.fromhex("a1013822")
        message = encode(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(key(self.signer).sign(message, ec.ECDSA(hashes.SHA384())))
        parts = {0: protected, 1: {}, 2: payload, 3: r.to_bytes(48, "big") + s.to_bytes(48, "big")} | self.envelope
        return self.tag + encode(list(parts.values())) + self.after

    def appraise(self) -> AttestationResult:
        chain = self.chain()
        asked: dict[str, Any] = {
            "nonce": NONCE,
            "user_data": b"user data",
            "public_key": b"a public key",
            "roots": frozenset({hashlib.sha256(chain[0]).hexdigest()}),
        }
        policy = SignedPolicy(
            envelope=signed(TABLE | self.policy, OWNER, nitro_policy.REFERENCE_TYPE), signers=(OWNER.public,)
        )
        return nitro_appraisal.appraise(self.data(chain), NitroChallenge(**(asked | self.challenge)), policy, self.now)

    def failed(self) -> list[str]:
        result = self.appraise()
        names = [check.name for check in result.failed]
        assert bool(names) == (result.status == "untrusted"), result.reason
        assert not names or result.claims == {}
        return names
