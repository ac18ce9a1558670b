# SPDX-License-Identifier: Apache-2.0
"""Reading a quote of SGX or TDX: versions 3, 4 and 5, whole or not at all (docs/attestation-intel.md §2).

Intel SGX ECDSA QuoteGenReference API, appendix A.4; Intel TDX DCAP Quoting Library API, appendix A.3 and A.4.
Numbers are little-endian. Nothing that is read here is believed before `intel_verify` has seen its signatures.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyquorum.evidence.tpm_wire import Reader

MAX_QUOTE = 16 * 1024
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")  # of Intel's quoting enclaves
VERSIONS = (3, 4, 5)
ECDSA_P256 = 2
SGX, TDX = "sgx", "tdx"
CERTIFICATE_CHAIN, QE_REPORT = 5, 6  # types of certification data: a chain in PEM; a QE report with its own
_TEES = {0x00: SGX, 0x81: TDX}
_HEADER = 48
_SVN_LEVELS = 16
_MAX_AUTH = 1024
_BODIES = {1: (SGX, 384), 2: (TDX, 584), 3: (TDX, 648)}  # of version 5, by type

_ENCLAVE = (
    ("cpusvn", 16), ("miscselect", 4), ("reserved1", 12), ("isvextprodid", 16), ("attributes", 16),
    ("mrenclave", 32), ("reserved2", 32), ("mrsigner", 32), ("reserved3", 32), ("configid", 64), ("isvprodid", 2),
    ("isvsvn", 2), ("configsvn", 2), ("reserved4", 42), ("isvfamilyid", 16), ("report_data", 64),
)  # fmt: skip
_TD = (
    ("tee_tcb_svn", _SVN_LEVELS), ("mrseam", 48), ("mrsignerseam", 48), ("seam_attributes", 8), ("attributes", 8),
    ("xfam", 8), ("mrtd", 48), ("mrconfigid", 48), ("mrowner", 48), ("mrownerconfig", 48), ("rtmr0", 48),
    ("rtmr1", 48), ("rtmr2", 48), ("rtmr3", 48), ("report_data", 64),
)  # fmt: skip
_TD_1_5 = (*_TD, ("tee_tcb_svn2", _SVN_LEVELS), ("mrservicetd", 48))


class _LittleReader(Reader):
    """A reader of numbers as Intel writes them."""

    def number(self, size: int) -> int:
        """Take an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """What the processor says of an enclave (SGX REPORT body, 384 bytes), each field as it lies in memory."""

    cpusvn: bytes
    miscselect: bytes
    isvextprodid: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    configid: bytes
    isvprodid: bytes
    isvsvn: bytes
    configsvn: bytes
    isvfamilyid: bytes
    report_data: bytes

    @property
    def flags(self) -> int:
        """The first half of ATTRIBUTES (Intel SDM, volume 3D, ATTRIBUTES); the second is XFRM."""
        return int.from_bytes(self.attributes[:8], "little")

    @property
    def security_version(self) -> int:
        """ISVSVN as a number."""
        return int.from_bytes(self.isvsvn, "little")

    @property
    def product(self) -> int:
        """ISVPRODID as a number."""
        return int.from_bytes(self.isvprodid, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What the TDX module says of a trust domain. The last two fields are empty in a body of TDX 1.0."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes = b""
    mrservicetd: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A quote that was read. `signed` are the bytes under `signature` (r ‖ s), `key` is x ‖ y of the attestation key.

    `qe_report` are the bytes under `qe_signature`; `certificates` is a chain in PEM; `fill` is what was sent after the
    end that the quote itself declares.
    """

    version: int
    tee: str
    body: EnclaveReport | TdReport
    signed: bytes
    signature: bytes
    key: bytes
    qe: EnclaveReport
    qe_report: bytes
    qe_signature: bytes
    qe_auth: bytes
    certificates: bytes
    fill: bytes


def parse(data: bytes, what: str = "the quote") -> Quote:
    """Read a quote; `TamperingError` says in `where` which rule of the header, body or certification is broken."""
    reader = _LittleReader(data, what, MAX_QUOTE)
    version, tee = _header(reader)
    extended = False
    start = _HEADER
    if version == 5:
        kind, size = reader.number(2), reader.number(4)
        if _BODIES.get(kind) != (tee, size):
            reader.fail(f"type {kind} of {size} bytes for {tee}", "body")
        extended, start = kind == 3, _HEADER + 6
    layout = _ENCLAVE if tee == SGX else _TD_1_5 if extended else _TD
    end = start + sum(size for _, size in layout)
    body = _enclave(reader) if tee == SGX else TdReport(**{name: reader.take(size) for name, size in layout})
    size = reader.number(4)
    inner = _LittleReader(reader.take(size), what, MAX_QUOTE)
    signature, key = inner.take(64), inner.take(64)
    qe = _nested(inner) if version >= 4 else inner
    qe_report = qe.take(sum(size for _, size in _ENCLAVE))
    qe_signature, qe_auth = qe.take(64), qe.sized(_MAX_AUTH)
    certificates = _certificates(qe)
    qe.finish()
    inner.finish()
    return Quote(
        version=version,
        tee=tee,
        body=body,
        signed=bytes(data[:end]),
        signature=signature,
        key=key,
        qe=_enclave(_LittleReader(qe_report, "the report of the quoting enclave", len(qe_report))),
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_auth=qe_auth,
        certificates=certificates,
        fill=bytes(data[end + 4 + size :]),
    )


def _header(reader: Reader) -> tuple[int, str]:
    """Take the header; return the version and whose quote it is."""
    if (version := reader.number(2)) not in VERSIONS:
        reader.fail(str(version), "version")
    if (kind := reader.number(2)) != ECDSA_P256:
        reader.fail(f"type {kind}", "key-type")
    number = reader.number(4)  # reserved in version 3, which is only SGX's
    if number not in _TEES or (version == 3 and number):
        reader.fail(f"type {number:#x} in version {version}", "tee")
    reader.take(4)  # security versions of QE and PCE; their own reports say them under a signature
    if (vendor := reader.take(16)) != VENDOR:
        reader.fail(vendor.hex(), "vendor")
    reader.take(20)  # user data of the quoting enclave
    return version, _TEES[number]


def _enclave(reader: Reader) -> EnclaveReport:
    fields = {name: reader.take(size) for name, size in _ENCLAVE}
    for name in [name for name in fields if name.startswith("reserved")]:
        if any(fields.pop(name)):
            reader.fail(f"the field {name} is not zero", "body")
    return EnclaveReport(**fields)


def _nested(reader: Reader) -> _LittleReader:
    """Take the certification data of version 4 and later, which are a QE report with its own."""
    found, size = reader.number(2), reader.number(4)
    if found != QE_REPORT:
        reader.fail(f"type {found}", "certification")
    return _LittleReader(reader.take(size), reader.what, MAX_QUOTE)


def _certificates(reader: Reader) -> bytes:
    """Take the chain in PEM, which some platforms end with a NUL."""
    found, size = reader.number(2), reader.number(4)
    if found != CERTIFICATE_CHAIN:
        reader.fail(f"type {found}", "certification")
    return reader.take(size).removesuffix(b"\x00")
