# SPDX-License-Identifier: Apache-2.0
"""A maker of chips like AMD's: roots, authorities, chip keys, reports and policies, with one thing wrong at will."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keyquorum.evidence import snp_appraisal, snp_policy
from keyquorum.evidence.certificate import load_list
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.result import AttestationResult
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.snp_certificates import Anchor
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence
from unit.evidence.ca_maker import END, START, authority
from unit.evidence.tpm_maker import NOW, OWNER, private, signed

OID = "1.3.6.1.4.1.3704.1"
CHIP = hashlib.sha512(b"chip").digest()
ASKED = hashlib.sha512(b"report data").digest()
MEASUREMENT = hashlib.sha384(b"guest").digest()
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
ARK, ASK, ASVK, STRANGER = 40, 41, 42, 43
TCB = {"Milan": "04000000000018db", "Genoa": "0a00000000001754", "Turin": "0101010400000051"}
FMS = {"Milan": b"\x19\x01\x01", "Genoa": b"\x19\x11\x01", "Turin": b"\x1a\x02\x01"}
PARTS = {
    "Milan": {"1": 0, "2": 1, "3": 6, "8": 7, "4": 2},
    "Genoa": {"1": 0, "2": 1, "3": 6, "8": 7, "4": 2},
    "Turin": {"9": 0, "1": 1, "2": 2, "3": 3, "8": 7, "5": 4},
}
SAFE_POLICY = 1 << 17 | 1 << 20 | 0xF << 22 | 0x0131
SAFE_PLATFORM = 0b111100


def rsa_key(number: int) -> rsa.RSAPrivateKey:
    key = private("rsa2048", number)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def chip_key(number: int = 44) -> ec.EllipticCurvePrivateKey:
    key = private("p384", number)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def name(common: str, company: str = "Advanced Micro Devices") -> x509.Name:
    parts = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.ORGANIZATION_NAME, company),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def certificate(
    issuer: str,
    subject: str,
    signer: int,
    key: Any,
    extensions: list[tuple[x509.ExtensionType, bool]],
    *,
    start: dt.datetime = START,
    end: dt.datetime = END,
    serial: int = 65537,
    algorithm: hashes.HashAlgorithm | None = None,
    pss: bool = True,
) -> bytes:
    builder = x509.CertificateBuilder(name(issuer), name(subject), key, serial, start, end)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    chosen = algorithm or hashes.SHA384()
    scheme = padding.PSS(padding.MGF1(chosen), chosen.digest_size) if pss else None
    return builder.sign(rsa_key(signer), chosen, rsa_padding=scheme).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # any hash, also a wrong one


def without_serial(data: bytes, signer: int) -> bytes:
    """Sign a certificate with the serial number 1 once more, as one with the number 0, which no library makes."""
    tbs = x509.load_der_x509_certificate(data).tbs_certificate_bytes
    changed = tbs[:11] + b"\x00" + tbs[12:]
    assert tbs[9:12] == b"\x02\x01\x01"
    return data[:4] + changed + data[4 + len(tbs) : -256] + rsa_key(signer).sign(changed, PSS, hashes.SHA384())


def integer(value: int) -> bytes:
    return b"\x02\x01" + bytes((value,)) if value < 0x80 else b"\x02\x02\x00" + bytes((value,))


def ia5(value: str) -> bytes:
    return b"\x16" + bytes((len(value),)) + value.encode()


@dataclass(kw_only=True)
class Scene:
    """A guest as its policy wants it; change one thing and appraise."""

    product: str = "Milan"
    kind: str = "VCEK"
    report: Mapping[int, bytes] = field(default_factory=dict)  # offset: bytes
    leaf: dict[str, Any] = field(default_factory=dict)
    extensions: Mapping[str, bytes | None] = field(default_factory=dict)
    intermediate: dict[str, Any] = field(default_factory=dict)
    root: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    challenge: dict[str, Any] = field(default_factory=dict)
    pinned: bool = True
    trust: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    signer: int = 44
    now: int = NOW

    @property
    def chip(self) -> bytes:
        if self.kind == "VLEK":
            return bytes(64)
        return CHIP[:8].ljust(64, b"\0") if self.product == "Turin" else CHIP

    def unsigned(self) -> bytes:
        version = 5 if self.product == "Turin" else 3
        tcb = bytes.fromhex(TCB[self.product])
        made = {
            0x00: version.to_bytes(4, "little"),
            0x04: (2).to_bytes(4, "little"),
            0x08: SAFE_POLICY.to_bytes(8, "little"),
            0x34: b"\x01",
            0x38: tcb,
            0x40: SAFE_PLATFORM.to_bytes(8, "little"),
            0x48: b"\x04" if self.kind == "VLEK" else b"\x00",
            0x50: ASKED,
            0x90: MEASUREMENT,
            0x180: tcb,
            0x188: FMS[self.product],
            0x1A0: self.chip,
            0x1E0: tcb,
            0x1E8: bytes.fromhex("1d3701001d370100"),
            0x1F0: tcb,
        }
        if version == 5:
            made |= {0x1F8: b"\x3f", 0x200: b"\x3f"}
        data = bytearray(0x4A0)
        for offset, value in (made | dict(self.report)).items():
            data[offset : offset + len(value)] = value
        return bytes(data)

    def signed_report(self) -> bytes:
        data = bytearray(self.unsigned())
        if not any(data[0x2A0:0x330]):
            numbers = decode_dss_signature(chip_key(self.signer).sign(bytes(data[:0x2A0]), ec.ECDSA(hashes.SHA384())))
            data[0x2A0:0x330] = b"".join(number.to_bytes(72, "little") for number in numbers)
        return bytes(data)

    def certificates(self) -> tuple[bytes, ...]:
        below = "SEV-" if self.kind == "VCEK" else "SEV-VLEK-"
        number = ASK if self.kind == "VCEK" else ASVK
        root: dict[str, Any] = {"issuer": f"ARK-{self.product}", "subject": f"ARK-{self.product}", "signer": ARK}
        root |= {"key": rsa_key(ARK).public_key(), "extensions": authority()}
        middle = root | {"subject": f"{below}{self.product}", "key": rsa_key(number).public_key()}
        middle |= {"extensions": authority(depth=0), "serial": 65537}
        leaf: dict[str, Any] = {"issuer": f"{below}{self.product}", "subject": f"SEV-{self.kind}", "signer": number}
        leaf |= {"key": chip_key().public_key(), "extensions": self.leaf_extensions(), "serial": 1}
        made = leaf | self.leaf
        first = certificate(**made)
        if made["serial"] == 1 and made.get("pss", True) and "algorithm" not in made:
            first = without_serial(first, made["signer"])
        return first, certificate(**(middle | self.intermediate)), certificate(**(root | self.root))

    def leaf_extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        tcb = bytes.fromhex(TCB[self.product])
        values: dict[str, bytes | None] = {"1": integer(0), "2": ia5(f"{self.product}-B0")}
        values |= {f"3.{part}": integer(tcb[at]) for part, at in PARTS[self.product].items()}
        if self.kind == "VCEK":
            values["4"] = CHIP[:8] if self.product == "Turin" else CHIP
        else:
            values["5"] = ia5("CN=cc.example.net")
        values |= dict(self.extensions)
        return [
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{OID}.{part}"), value), part == "99")
            for part, value in values.items()
            if value is not None
        ]

    def anchors(self, chain: tuple[bytes, ...]) -> tuple[Anchor, ...]:
        _, middle, root = (hashlib.sha256(one).hexdigest() for one in chain)
        return (Anchor(product=self.product, root=root, intermediates=frozenset({middle} if self.pinned else ())),)

    def appraise(self) -> AttestationResult:
        chain = self.certificates()
        evidence: dict[str, Any] = {"report": self.signed_report(), "certificates": chain}
        trust: dict[str, Any] = {"anchors": self.anchors(chain)}
        asked: dict[str, Any] = {"report_data": ASKED}
        return snp_appraisal.appraise(
            SnpEvidence(**(evidence | self.evidence)),
            SnpChallenge(**(asked | self.challenge)),
            SnpTrust(**(trust | self.trust)),
            SignedPolicy(
                envelope=signed(policy_table(**self.policy), OWNER, snp_policy.REFERENCE_TYPE), signers=(OWNER.public,)
            ),
            self.now,
        )

    def failed(self) -> list[str]:
        """Return the names of the failed checks; the guest must then not be trusted, and nothing is claimed."""
        result = self.appraise()
        names = [check.name for check in result.failed]
        assert bool(names) == (result.status == "untrusted"), result.reason
        assert not names or (result.claims == {} and result.reason.startswith(names[0]))
        return names


GUEST = {
    "abi-major": 0, "abi-minor": 31, "smt": "forbidden", "migration": "forbidden", "debug": "forbidden",
    "single-socket": "required", "cxl": "forbidden", "aes-256-xts": "required", "rapl-off": "required",
    "ciphertext-hiding": "required", "page-swap-off": "required",
}  # fmt: skip
PLATFORM = {
    "smt": "off", "ecc": "on", "rapl-off": "on", "ciphertext-hiding": "on", "alias-check": "on", "unknown": "00" * 8,
}  # fmt: skip
PRODUCTS: dict[str, Any] = {
    "Milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219, "mitigations": "any"},
    "Genoa": {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84, "mitigations": "any"},
    "Turin": {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 81, "mitigations": "000000000000003f"},
}


def policy_table(**changes: Any) -> dict[str, Any]:
    """Return a policy that demands everything."""
    return {
        "version": 1,
        "name": "strict",
        "serial": 1,
        "issued": 0,
        "expires": 1 << 40,
        "report-versions": [2, 3, 5],
        "signers": ["vcek"],
        "vlek-providers": [],
        "products": PRODUCTS,
        "provisional-firmware": "forbidden",
        "vmpl": [0],
        "guest-svn": 2,
        "measurement": [MEASUREMENT.hex()],
        "host-data": ["00" * 32],
        "family-id": ["00" * 16],
        "image-id": ["00" * 16],
        "id-key": ["00" * 48],
        "author-key": ["00" * 48],
        "guest-policy": GUEST,
        "platform": PLATFORM,
        "chips": {"listed": "any", "denied": []},
    } | changes


def revocation(*serials: int, demanded: bool = False, **changes: Any) -> Revocation:
    """Return what a caller gives who has the list of Milan's root."""
    return Revocation(lists=(load_list(revocation_list(*serials, **changes), "the list"),), demanded=demanded)


def revocation_list(*serials: int, signer: int = ARK, end: dt.datetime = END) -> bytes:
    """Return the list of Milan's root, in DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(name("ARK-Milan"))
    builder = builder.last_update(START).next_update(end)
    for serial in serials:
        row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(START).build()
        builder = builder.add_revoked_certificate(row)
    return builder.sign(rsa_key(signer), hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)
