# SPDX-License-Identifier: Apache-2.0
"""A TPM's words, made by hand: keys, quotes, signatures, event logs and policies, each of which a test may spoil."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from keyquorum.envelope.signing import Owner
from keyquorum.evidence import reference_values, tpm_appraisal, tpm_public
from keyquorum.evidence.result import AttestationResult
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence
from keyquorum.evidence.tpm_wire import BANKS, ECC, ECDSA, NULL, RSA, RSAPSS, RSASSA, SHA256
from keyquorum.model import strict_json

NOW = 1_800_000_000
NONCE = hashlib.sha256(b"nonce").digest()
AK_ATTRIBUTES = 0x50072  # as tpm2_createak makes it: restricted sign userWithAuth and bound to its TPM
EK_ATTRIBUTES = 0x300B2  # of the EK Credential Profile's L templates
CLOCK = ClockInfo(reset_count=5, restart_count=1, clock=1_000, safe=True)
OWNER = Owner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

_CURVES: dict[str, tuple[ec.EllipticCurve, int, int]] = {
    "p256": (ec.SECP256R1(), 3, 32),
    "p384": (ec.SECP384R1(), 4, 48),
    "p521": (ec.SECP521R1(), 5, 66),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
NUMBERS = {"sha1": 4, **BANKS}


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def sized(data: bytes) -> bytes:
    return u16(len(data)) + data


@cache
def private(kind: str, number: int = 0) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """Return a key; "rsa2048" or the name of a curve. Each number is another one; on a curve, the same in each run."""
    assert number >= 0
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    seed = hashlib.sha256(f"{kind} {number}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(seed) >> 8, _CURVES[kind][0])


@dataclass(frozen=True, kw_only=True)
class Key:
    """An asymmetric key of a TPM; the parts of its public area may be chosen wrongly."""

    kind: str = "p256"
    number: int = 0
    attributes: int = AK_ATTRIBUTES
    scheme: int = ECDSA
    hash: str = "sha256"
    name_algorithm: int = SHA256
    cipher: bytes = u16(NULL)
    exponent: int = 0

    @property
    def area(self) -> bytes:
        key = private(self.kind, self.number)
        scheme = u16(NULL) if self.scheme == NULL else u16(self.scheme) + u16(NUMBERS[self.hash])
        head = u16(self.name_algorithm) + u32(self.attributes) + sized(b"") + self.cipher + scheme
        if isinstance(key, rsa.RSAPrivateKey):
            modulus = key.public_key().public_numbers().n.to_bytes(key.key_size // 8, "big")
            return u16(RSA) + head + u16(key.key_size) + u32(self.exponent) + sized(modulus)
        _, curve, size = _CURVES[self.kind]
        point = key.public_key().public_numbers()
        coordinates = sized(point.x.to_bytes(size, "big")) + sized(point.y.to_bytes(size, "big"))
        return u16(ECC) + head + u16(curve) + u16(NULL) + coordinates

    @property
    def enrolled(self) -> AttestationKey:
        name = self.area[2:4] + hashlib.sha256(self.area).digest()
        return AttestationKey(area=self.area, qualified_name=tpm_public.qualified_name((name,)))

    def sign(self, message: bytes, *, scheme: int | None = None, hash_name: str | None = None) -> bytes:
        """Return a TPMT_SIGNATURE, by the key's own scheme or another."""
        key, scheme, name = private(self.kind, self.number), scheme or self.scheme, hash_name or self.hash
        algorithm = _HASHES[name]
        head = u16(scheme) + u16(NUMBERS[name])
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
            size = _CURVES[self.kind][2]
            return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.MAX_LENGTH)
        return head + sized(key.sign(message, pss if scheme == RSAPSS else padding.PKCS1v15(), algorithm))


RSA_KEY = Key(kind="rsa2048", scheme=RSASSA)
EK = Key(kind="rsa2048", number=1, attributes=EK_ATTRIBUTES, scheme=NULL, cipher=u16(6) + u16(128) + u16(0x43))
ECC_EK = Key(number=1, attributes=EK_ATTRIBUTES, scheme=NULL, cipher=u16(6) + u16(128) + u16(0x43))


def selection(bank: str, *pcrs: int) -> bytes:
    """Return a TPMS_PCR_SELECTION."""
    return u16(NUMBERS[bank]) + b"\x03" + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")


@dataclass(frozen=True, kw_only=True)
class Attest:
    """A TPMS_ATTEST."""

    signer: bytes
    digest: bytes
    selections: tuple[bytes, ...]
    magic: int = 0xFF544347
    kind: int = 0x8018
    nonce: bytes = NONCE
    clock: ClockInfo = CLOCK
    firmware: int = 0x0001000200030004

    @property
    def data(self) -> bytes:
        clock = struct.pack(
            ">QIIB", self.clock.clock, self.clock.reset_count, self.clock.restart_count, self.clock.safe
        )
        head = u32(self.magic) + u16(self.kind) + sized(self.signer) + sized(self.nonce) + clock
        listed = u32(len(self.selections)) + b"".join(self.selections)
        return head + struct.pack(">Q", self.firmware) + listed + sized(self.digest)


def variable(name: str, value: bytes, guid: str = "61dfe48bca93d211aa0d00e098032b8c") -> bytes:
    """Return a UEFI_VARIABLE_DATA."""
    return bytes.fromhex(guid) + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def secure_boot(value: bytes = b"\x01") -> tuple[int, int, bytes]:
    """Return the event by which firmware says whether Secure Boot is on."""
    return (7, 0x80000001, variable("SecureBoot", value))


SEPARATORS = tuple((pcr, 4, bytes(4)) for pcr in range(8))
EXIT = (
    (5, 0x80000007, b"Exit Boot Services Invocation"),
    (5, 0x80000007, b"Exit Boot Services Returned with Success"),
)
BOOT = (secure_boot(), *SEPARATORS, (4, 0x80000003, b"a boot loader"), *EXIT)


def log(events: tuple[tuple[int, int, bytes], ...]) -> bytes:
    """Return an event log of SHA-256; the digest of each event is that of its data."""
    spec = b"Spec ID Event03\x00" + bytes(8) + struct.pack("<IHH", 1, SHA256, 32) + b"\x00"
    found = struct.pack("<II20sI", 0, 3, bytes(20), len(spec)) + spec
    for pcr, kind, data in events:
        digest = hashlib.sha256(data).digest()
        found += struct.pack("<IIIH32sI", pcr, kind, 1, SHA256, digest, len(data)) + data
    return found


def values_of(events: tuple[tuple[int, int, bytes], ...], pcrs: range | tuple[int, ...] = range(8)) -> dict[int, bytes]:
    """Return what a TPM has after these events."""
    found = dict.fromkeys(pcrs, bytes(32))
    for pcr, kind, data in events:
        if pcr in found and kind != 3:
            found[pcr] = hashlib.sha256(found[pcr] + hashlib.sha256(data).digest()).digest()
    return found


def policy_table(pcrs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return reference values that demand everything."""
    table = {
        "version": 1,
        "name": "servers",
        "serial": 7,
        "issued": NOW - 1000,
        "expires": NOW + 1000,
        "bank": "sha256",
        "pcrs": pcrs,
        "log": {"secure_boot": "on", "exit_boot_services": "called"},
        "firmware": "0001000000000000",
        "clock": "safe",
    }
    return table | changes


def signed(table: dict[str, Any], owner: Owner = OWNER, kind: str = reference_values.REFERENCE_TYPE) -> bytes:
    return strict_json.serialise(owner.sign(kind, strict_json.serialise(table)))


@dataclass(kw_only=True)
class Scene:
    """A machine that is as its policy wants it; change one thing and appraise."""

    key: Key = field(default_factory=Key)
    events: tuple[tuple[int, int, bytes], ...] = BOOT
    attest: dict[str, Any] = field(default_factory=dict)
    challenge: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    signing: dict[str, Any] = field(default_factory=dict)
    now: int = NOW
    lowest_serial: int = 1

    @property
    def values(self) -> dict[int, bytes]:
        return values_of(self.events)

    def quote(self) -> bytes:
        digest = hashlib.new(self.key.hash, b"".join(self.values[pcr] for pcr in sorted(self.values))).digest()
        made: dict[str, Any] = {
            "signer": self.key.enrolled.qualified_name,
            "digest": digest,
            "selections": (selection("sha256", *self.values),),
        }
        return Attest(**(made | self.attest)).data

    def appraise(self) -> tuple[AttestationResult, ClockInfo | None]:
        attest = self.quote()
        evidence: dict[str, Any] = {
            "attest": attest,
            "signature": self.key.sign(attest, **self.signing),
            "pcrs": self.values,
            "log": log(self.events),
        }
        asked: dict[str, Any] = {"key": self.key.enrolled, "extra_data": NONCE}
        pcrs = {str(pcr): [value.hex()] for pcr, value in self.values.items()}
        table = policy_table(**({"pcrs": pcrs} | self.policy))
        return tpm_appraisal.appraise(
            QuoteEvidence(**(evidence | self.evidence)),
            Challenge(**(asked | self.challenge)),
            SignedPolicy(envelope=signed(table), signers=(OWNER.public,), lowest_serial=self.lowest_serial),
            self.now,
        )

    def failed(self) -> list[str]:
        """Return the names of the failed checks; the machine must then not be trusted, and nothing is claimed."""
        result, clock = self.appraise()
        names = [check.name for check in result.failed]
        assert bool(names) == (result.status == "untrusted") == (clock is None)
        assert not names or (result.claims == {} and result.reason.startswith(names[0]))
        return names
