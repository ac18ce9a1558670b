# SPDX-License-Identifier: Apache-2.0
"""An Intel of our own: root, PCK and collateral of the same shape as Intel's, quotes of TDX and SGX, all spoilable."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.evidence import intel_appraisal, intel_certificates
from keyquorum.evidence.intel_bundle import Collateral
from keyquorum.evidence.intel_reference import INTEL_TYPE, MEASUREMENTS
from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
from keyquorum.evidence.result import AttestationResult
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.model import strict_json
from unit.evidence.ca_maker import Authority, authority, usage
from unit.evidence.tpm_maker import NOW, OWNER, private, signed

ROOT = Authority(subject="Intel SGX Root CA", number=40)
PLATFORM_CA = Authority(subject="Intel SGX PCK Platform CA", number=41)
PCK, TCB_SIGNER, ATTESTATION, STRANGER = 42, 43, 44, 45
PPID, FMSPC, PCE_ID = bytes(range(16)), bytes.fromhex("00906ed50000"), bytes(2)
REPORT_DATA = hashlib.sha512(b"report data").digest()
SIGNS = usage(digital_signature=True, content_commitment=True)
QE_SIGNER = hashlib.sha256(b"quoting enclave").digest()
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
TD_FIELDS = (
    "mrtd", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3",
)  # fmt: skip


def little(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    key = private("p256", number)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def sign(number: int, message: bytes) -> bytes:
    r, s = decode_dss_signature(ec_key(number).sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(number: int) -> bytes:
    return ec_key(number).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes((tag, size)) + content if size < 128 else bytes((tag, 0x82)) + size.to_bytes(2, "big") + content


def pair(number: bytes, value: bytes) -> bytes:
    return tlv(0x30, tlv(0x06, bytes.fromhex("2a864886f84d010d01") + number) + value)


def sgx_extensions(**changes: Any) -> bytes:
    """Return the SGX extensions of a PCK certificate; a None leaves one out."""
    parts: dict[str, Any] = {"ppid": PPID, "pce_id": PCE_ID, "fmspc": FMSPC, "components": (3,) * 16, "pcesvn": 11}
    parts |= changes
    tcb = b"".join(pair(bytes((2, n)), tlv(2, bytes((0, v)))) for n, v in enumerate(parts["components"], 1))
    tcb += pair(b"\x02\x11", tlv(2, parts["pcesvn"].to_bytes(2, "big"))) + pair(b"\x02\x12", tlv(4, bytes(16)))
    rows = {1: parts["ppid"], 3: parts["pce_id"], 4: parts["fmspc"]}
    body = b"".join(pair(bytes((n,)), tlv(4, value)) for n, value in rows.items() if value is not None)
    return tlv(0x30, body + pair(b"\x02", tlv(0x30, tcb)) + pair(b"\x05", tlv(0x0A, b"\x00")) + parts.get("more", b""))


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


@cache
def root() -> x509.Certificate:
    return ROOT.sign(ROOT.subject, ec_key(ROOT.number).public_key(), authority(depth=1))


@cache
def platform_ca(subject: str = PLATFORM_CA.subject) -> x509.Certificate:
    return ROOT.sign(subject, ec_key(PLATFORM_CA.number).public_key(), authority(depth=0), serial=5)


def leaf(
    subject: str = "Intel SGX PCK Certificate", *, number: int = PCK, issuer: Authority = PLATFORM_CA, **changes: Any
) -> x509.Certificate:
    """Return a PCK certificate, or one like it."""
    bits, sgx = changes.pop("bits", SIGNS), changes.pop("sgx", sgx_extensions())
    rows: list[Any] = [(x509.BasicConstraints(ca=changes.pop("ca", False), path_length=None), True), (bits, True)]
    if sgx:
        rows.append((x509.UnrecognizedExtension(intel_certificates.SGX_EXTENSIONS, sgx), False))
    return issuer.sign(subject, ec_key(number).public_key(), rows, **changes)


@cache
def pck_chain() -> bytes:
    return pem(leaf(), platform_ca(), root())


@cache
def signer_chain() -> bytes:
    return pem(signer(), root())


def signer(subject: str = "Intel SGX TCB Signing", **changes: Any) -> x509.Certificate:
    return leaf(subject, number=TCB_SIGNER, issuer=ROOT, sgx=b"", serial=9, **changes)


PINNED = frozenset({hashlib.sha256(root().public_bytes(Encoding.DER)).digest()})


@cache
def lists() -> tuple[bytes, bytes]:
    return PLATFORM_CA.revoke(), ROOT.revoke()


def level(svn: int, status: str = "UpToDate", **changes: Any) -> dict[str, Any]:
    return {"tcb": {"isvsvn": svn}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status} | changes


def tcb_level(svn: int, status: str = "UpToDate", *, tdx: int | None = None, **changes: Any) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn, "category": "BIOS"}] * 16, "pcesvn": 11}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": tdx}] * 16
    return {"tcb": tcb, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status} | changes


ISSUED, ENDS = "2027-01-10T00:00:00Z", "2027-02-09T00:00:00Z"  # NOW is 2027-01-15


def module(**changes: Any) -> dict[str, Any]:
    return {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8} | changes


def tcb_info(tee: str, **changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "id": tee.upper(), "version": 3, "issueDate": ISSUED, "nextUpdate": ENDS, "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(), "tcbType": 0, "tcbEvaluationDataNumber": 18,
    }  # fmt: skip
    if tee == "tdx":
        modules = [module(id="TDX_03", tcbLevels=[level(3)]), module(id="TDX_01", tcbLevels=[level(5)])]
        table |= {"tdxModule": module(), "tdxModuleIdentities": modules}
    table["tcbLevels"] = [tcb_level(3, tdx=2 if tee == "tdx" else None)]
    return table | changes


def identity(tee: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": "TD_QE" if tee == "tdx" else "QE", "version": 2, "issueDate": ISSUED, "nextUpdate": ENDS,
        "tcbEvaluationDataNumber": 18, "miscselect": "00" * 4, "miscselectMask": "FF" * 4,
        "attributes": "11" + "00" * 15, "attributesMask": "FB" + "FF" * 7 + "00" * 8, "mrsigner": QE_SIGNER.hex(),
        "isvprodid": 2, "tcbLevels": [level(4), level(2, "OutOfDate", advisoryIDs=["INTEL-SA-00001"])],
    } | changes  # fmt: skip


def enclave_report(**changes: bytes) -> bytes:
    """Return an SGX REPORT body."""
    fields = {
        "cpusvn": bytes(16), "miscselect": bytes(4), "reserved1": bytes(12), "isvextprodid": bytes(16),
        "attributes": little(0x5, 8) + little(0xE7, 8), "mrenclave": hashlib.sha256(b"enclave").digest(),
        "reserved2": bytes(32), "mrsigner": hashlib.sha256(b"signer").digest(), "reserved3": bytes(32),
        "configid": bytes(64), "isvprodid": little(7, 2), "isvsvn": little(3, 2), "configsvn": bytes(2),
        "reserved4": bytes(42), "isvfamilyid": bytes(16), "report_data": REPORT_DATA,
    }  # fmt: skip
    assert changes.keys() <= fields.keys()
    return b"".join((fields | changes).values())


def td_report(*, extended: bool, **changes: bytes) -> bytes:
    """Return a TD report body of TDX 1.0 or 1.5."""
    fields = {
        "tee_tcb_svn": bytes((5, 1)) + bytes((2,)) * 14, "mrseam": bytes(range(48)), "mrsignerseam": bytes(48),
        "seam_attributes": bytes(8), "attributes": little(1 << 28, 8), "xfam": little(0x602E7, 8),
    }  # fmt: skip
    fields |= {name: hashlib.sha384(name.encode()).digest() for name in TD_FIELDS}
    fields["report_data"] = REPORT_DATA
    if extended:
        fields |= {"tee_tcb_svn2": bytes(16), "mrservicetd": bytes(48)}
    assert changes.keys() <= fields.keys()
    return b"".join((fields | changes).values())


def extended(*measured: bytes) -> bytes:
    """Return an RTMR into which these data were measured."""
    value = bytes(48)
    for data in measured:
        value = hashlib.sha384(value + hashlib.sha384(data).digest()).digest()
    return value


def ccel(*events: tuple[int, bytes]) -> bytes:
    """Return an event log of SHA-384; each event is the number of its register (RTMR0 is 1) and what was measured."""
    spec = b"Spec ID Event03\x00" + bytes(8) + struct.pack("<IHH", 1, 0x0C, 48) + b"\x00"
    found = struct.pack("<II20sI", 0, 3, bytes(20), len(spec)) + spec
    for number, data in events:
        digest = hashlib.sha384(data).digest()
        found += struct.pack("<IIIH48sI", number, 0x0D, 1, 0x0C, digest, len(data)) + data
    return found + b"\xff" * 100


def td_policy(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = dict.fromkeys(MEASUREMENTS, "unjudged")
    body |= {name: [hashlib.sha384(name.encode()).hexdigest()] for name in TD_FIELDS}
    body |= {"mrservicetd": ["00" * 48], "xfam": f"{0x602E7:016x}"}
    body["attributes"] = {
        "debug": "off", "sept-ve-disable": "on", "migratable": "off", "pks": "off", "kl": "off", "perfmon": "off",
        "lass": "off", "tpa": "off",
    }  # fmt: skip
    return body | changes


def enclave_policy(**changes: Any) -> dict[str, Any]:
    signer_rule = {"mrsigner": hashlib.sha256(b"signer").hexdigest(), "isvprodid": 7, "isvsvn": 3}
    return {
        "attributes": {"debug": "off", "provision-key": "off", "einittoken-key": "off"},
        "identities": [signer_rule],
        "configid": ["00" * 64],
        "isvextprodid": ["00" * 16],
        "isvfamilyid": ["00" * 16],
    } | changes


def policy(tee: str = "tdx", body: dict[str, Any] | None = None, /, **changes: Any) -> dict[str, Any]:
    """Return reference values that demand everything."""
    return {
        "version": 1, "name": "enclaves", "serial": 7, "issued": NOW - 1000, "expires": NOW + 1000, "tee": tee,
        "tcb": {"statuses": {}, "advisories": {}, "evaluation": 17},
        "platforms": {"allowed": [PPID.hex()], "denied": []},
        ("td" if tee == "tdx" else "enclave"): (td_policy if tee == "tdx" else enclave_policy)(**(body or {})),
    } | changes  # fmt: skip


def signed_policy(table: dict[str, Any], lowest_serial: int = 1) -> SignedPolicy:
    return SignedPolicy(envelope=signed(table, kind=INTEL_TYPE), signers=(OWNER.public,), lowest_serial=lowest_serial)


@dataclass(kw_only=True)
class Scene:
    """A platform, its quote and Intel's collateral, all as the policy wants them; change something and appraise."""

    tee: str = "tdx"
    version: int = 4
    header: dict[str, bytes] = field(default_factory=dict)
    body: dict[str, bytes] = field(default_factory=dict)
    descriptor: bytes = b""
    qe: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    collateral: dict[str, bytes] | None = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    trust: dict[str, Any] = field(default_factory=dict)
    report_data: bytes = REPORT_DATA
    spoil: Callable[[bytes], bytes] = bytes
    policy_tee: str = ""
    log: bytes = b""
    now: int = NOW

    def signed_part(self) -> bytes:
        tee = little(0x81 if self.tee == "tdx" else 0, 4)
        header = {"version": little(self.version, 2), "key": little(2, 2), "tee": tee, "svn": bytes(4)}
        header |= {"vendor": VENDOR, "user": bytes(20)} | self.header
        extended = self.version == 5 and self.tee == "tdx"
        body = td_report(extended=extended, **self.body) if self.tee == "tdx" else enclave_report(**self.body)
        kind = little((3 if extended else 1), 2) + little(len(body), 4)
        descriptor = self.descriptor or kind if self.version == 5 else b""
        return b"".join(header.values()) + descriptor + body

    def quote(self) -> bytes:
        message, key, auth = self.signed_part(), point(ATTESTATION), bytes(range(32))
        report = enclave_report(**({
            "attributes": little(0x15, 8) + little(0xE7, 8), "mrsigner": QE_SIGNER, "isvprodid": little(2, 2),
            "isvsvn": little(4, 2), "report_data": hashlib.sha256(key + auth).digest() + bytes(32),
        } | self.qe))  # fmt: skip
        parts = {
            "signature": sign(ATTESTATION, message), "key": key, "outer": little(6, 2), "report": report,
            "qe_signature": sign(PCK, report), "auth": little(len(auth), 2) + auth, "type": little(5, 2),
            "chain": pck_chain(), "tail": b"", "end": b"",
        } | self.parts  # fmt: skip
        inner = parts["report"] + parts["qe_signature"] + parts["auth"] + parts["type"]
        inner += little(len(parts["chain"]), 4) + parts["chain"] + parts["tail"]
        outer = parts["outer"] + little(len(inner), 4) if self.version >= 4 else b""
        data = parts["signature"] + parts["key"] + outer + inner + parts["end"]
        return self.spoil(message + little(len(data), 4) + data)

    def collected(self) -> Collateral | None:
        if self.collateral is None:
            return None
        info = strict_json.serialise(tcb_info(self.tee, **self.info))
        qe_identity = strict_json.serialise(identity(self.tee, **self.identity))
        parts: dict[str, bytes] = {
            "tcb_info": info, "tcb_info_signature": sign(TCB_SIGNER, info), "tcb_info_chain": signer_chain(),
            "qe_identity": qe_identity, "qe_identity_signature": sign(TCB_SIGNER, qe_identity),
            "qe_identity_chain": signer_chain(), "pck_crl": lists()[0], "root_crl": lists()[1],
        }  # fmt: skip
        return Collateral(**(parts | self.collateral))

    def appraise(self) -> tuple[AttestationResult, int]:
        evidence = IntelEvidence(quote=self.quote(), collateral=self.collected(), log=self.log)
        table = policy(self.policy_tee or self.tee, self.reference, **self.policy)
        trust = IntelTrust(**({"roots": PINNED} | self.trust))
        return intel_appraisal.appraise(evidence, self.report_data, signed_policy(table), trust, self.now)

    def failed(self) -> list[str]:
        """Return the names of the failed checks; nothing must then be claimed or remembered."""
        result, evaluation = self.appraise()
        names = [check.name for check in result.failed]
        assert bool(names) == (result.status == "untrusted") == (result.claims == {})
        assert not names or evaluation == self.trust.get("evaluation", 0)
        assert not names or result.reason.startswith(names[0])
        return names
