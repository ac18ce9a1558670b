# SPDX-License-Identifier: Apache-2.0
"""Reading an attestation report of AMD SEV-SNP (AMD 56860, ATTESTATION_REPORT; docs/attestation-snp.md §2).

Versions 2, 3 and 5. Every reserved byte must be zero: what is not understood is not believed. Nothing in a report
counts before its signature does.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyquorum.errors import TamperingError

SIZE = 0x4A0
SIGNED = 0x2A0  # the signature is over everything before it
VERSIONS = (2, 3, 5)
WITHOUT_FMS = 2  # reports of this version do not say which processor they are of
WITH_MITIGATIONS = 5
ECDSA_P384_SHA384 = 1
MILAN, GENOA, TURIN = PRODUCTS = ("Milan", "Genoa", "Turin")

SIGNED_BY_VCEK, SIGNED_BY_VLEK = 0, 1  # SIGNING_KEY; 7 is "not signed"

# Components of a TCB version by their byte (AMD 56860, TCB_VERSION); all other bytes are reserved.
_COMPONENTS = {
    MILAN: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    GENOA: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    TURIN: {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}

# (offset, end) of what must be zero in every version, and what else by version
_RESERVED = ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, SIGNED), (0x330, SIZE))
_RESERVED_BY_VERSION = {
    2: ((0x188, 0x18B), (0x1F8, 0x208)),
    3: ((0x1F8, 0x208),),
    5: (),
}
_KNOWN_FLAGS = 0b11111  # AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY

_ZEN3_AND_4, _ZEN5 = 0x19, 0x1A


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed report. `tcb` is the reported TCB version, by which the signing key was derived; versions have 8 bytes.

    `fms` is family, model and stepping of the processor, empty in version 2. `firmware` is (major, minor, build).
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform: int
    author_key: bool
    masked_chip_key: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    tcb: bytes
    fms: bytes
    chip_id: bytes
    committed_tcb: bytes
    firmware: tuple[int, int, int]
    committed_firmware: tuple[int, int, int]
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    signature: bytes
    signed: bytes


def parse(data: bytes, what: str) -> Report:
    """Read a report; `TamperingError` says in `where` whether size, version, algorithm or reserved bytes are wrong."""
    data = bytes(data[: SIZE + 1])
    if len(data) != SIZE:
        raise TamperingError(what, "size", f"{len(data)} bytes" if len(data) < SIZE else f"more than {SIZE} bytes")
    version = _number(data, 0x00, 4)
    if version not in VERSIONS:
        raise TamperingError(what, "version", str(version))
    if (algorithm := _number(data, 0x34, 4)) != ECDSA_P384_SHA384:
        raise TamperingError(what, "algorithm", str(algorithm))
    for start, end in sorted(_RESERVED + _RESERVED_BY_VERSION[version]):
        if any(data[start:end]):
            raise TamperingError(what, "reserved", f"something at {start:#05x} to {end - 1:#05x}")
    if (flags := _number(data, 0x48, 4)) & ~_KNOWN_FLAGS:
        raise TamperingError(what, "reserved", f"bits {flags & ~_KNOWN_FLAGS:#x} at 0x048")
    return Report(
        version=version,
        guest_svn=_number(data, 0x04, 4),
        policy=_number(data, 0x08, 8),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=_number(data, 0x30, 4),
        current_tcb=data[0x38:0x40],
        platform=_number(data, 0x40, 8),
        author_key=bool(flags & 1),
        masked_chip_key=bool(flags >> 1 & 1),
        signing_key=flags >> 2,
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        tcb=data[0x180:0x188],
        fms=b"" if version == WITHOUT_FMS else data[0x188:0x18B],
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=data[0x1E0:0x1E8],
        firmware=(data[0x1EA], data[0x1E9], data[0x1E8]),
        committed_firmware=(data[0x1EE], data[0x1ED], data[0x1EC]),
        launch_tcb=data[0x1F0:0x1F8],
        launch_mitigations=_number(data, 0x1F8, 8),
        current_mitigations=_number(data, 0x200, 8),
        signature=data[SIGNED:0x330],
        signed=data[:SIGNED],
    )


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")


def product(fms: bytes) -> str:
    """Return the product of a family, model and stepping; "" if it is none that is known here."""
    family, model = fms[0], fms[1]
    if family == _ZEN5:
        return TURIN
    if family == _ZEN3_AND_4 and model < 0x10:
        return MILAN
    if family == _ZEN3_AND_4 and (model < 0x20 or model >> 4 == 0xA):
        return GENOA
    return ""


def component_names(name: str) -> tuple[str, ...]:
    """Return the components of a product's TCB version."""
    return tuple(_COMPONENTS[name])


def components(tcb: bytes, name: str, what: str) -> dict[str, int]:
    """Take a TCB version of a product apart; raises `TamperingError` if a reserved byte is not zero.

    Versions are compared component by component; the number that the bytes make means nothing.
    """
    places = _COMPONENTS[name]
    if any(byte for at, byte in enumerate(tcb) if at not in places.values()):
        raise TamperingError(what, "", f"{tcb.hex()} has something in its reserved bytes")
    return {component: tcb[at] for component, at in places.items()}


def tcb_text(found: dict[str, int]) -> str:
    """Return a TCB version in words."""
    return ", ".join(f"{component} {level}" for component, level in found.items())
