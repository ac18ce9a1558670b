# SPDX-License-Identifier: Apache-2.0
"""Which status a platform has: matching its security versions with Intel's levels, and merging to the worst.

Intel SGX and Intel TDX Provisioning Certification Service API version 4 for the levels, Intel's quote verification
library for the merging (docs/attestation-intel.md §4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyquorum.evidence.intel_certificates import Platform
    from keyquorum.evidence.intel_collateral import EnclaveIdentity, IsvLevel, ModuleIdentity, TcbInfo, TcbLevel
    from keyquorum.evidence.intel_quote import EnclaveReport, TdReport

UP_TO_DATE, OUT_OF_DATE, REVOKED = "UpToDate", "OutOfDate", "Revoked"
_WITH_OLD_PART = {
    UP_TO_DATE: OUT_OF_DATE,
    "SWHardeningNeeded": OUT_OF_DATE,
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A status with the advisories that go with it."""

    status: str
    advisories: tuple[str, ...]


def match(info: TcbInfo, platform: Platform, td: TdReport | None) -> TcbLevel | None:
    """Return the first level that the platform reaches in every component, or None: the levels are in order."""
    for level in info.levels:
        sgx = all(have >= want for have, want in zip(platform.components, level.sgx, strict=True))
        if sgx and platform.pcesvn >= level.pcesvn and (td is None or _reaches(td, level)):
            return level
    return None


def _reaches(td: TdReport, level: TcbLevel) -> bool:
    """Where byte 1 is not zero, bytes 0 and 1 are the module's own version, which has levels of its own."""
    first = 2 if td.tee_tcb_svn[1] else 0
    pairs = list(zip(td.tee_tcb_svn, level.tdx, strict=True))
    return all(have >= want for have, want in pairs[first:])


def module_name(td: TdReport) -> str:
    """Return the name of the module identity that judges this TDX module; "" is the default one."""
    version = td.tee_tcb_svn[1]
    return f"TDX_{version:02X}" if version else ""


def module_of(info: TcbInfo, td: TdReport) -> ModuleIdentity | None:
    """Return the module identity that judges this TDX module, if Intel knows one."""
    name = module_name(td)
    if not name:
        return info.module
    return next((one for one in info.modules if one.name.upper() == name), None)


def is_module(identity: ModuleIdentity, td: TdReport) -> bool:
    """Say whether signer and attributes of the TDX module are those of the identity."""
    masked = bytes(have & mask for have, mask in zip(td.seam_attributes, identity.mask, strict=True))
    return td.mrsignerseam == identity.mrsigner and masked == identity.attributes


def is_quoting_enclave(identity: EnclaveIdentity, qe: EnclaveReport) -> bool:
    """Say whether an enclave is the quoting enclave of the identity; its level is another question."""
    misc = bytes(have & mask for have, mask in zip(qe.miscselect, identity.miscselect_mask, strict=True))
    attributes = bytes(have & mask for have, mask in zip(qe.attributes, identity.attributes_mask, strict=True))
    return (misc, attributes, qe.mrsigner, qe.product) == (
        identity.miscselect,
        identity.attributes,
        identity.mrsigner,
        identity.isvprodid,
    )


def isv_level(levels: tuple[IsvLevel, ...], svn: int) -> IsvLevel | None:
    """Return the highest level that a security version reaches, or None."""
    reached = [level for level in levels if svn >= level.svn]
    return max(reached, key=lambda level: level.svn) if reached else None


def converge(platform: TcbLevel, *parts: IsvLevel) -> Standing:
    """Merge the platform's status with those of its quoting enclave and TDX module: to the worst."""
    status = platform.status
    for part in parts:
        if part.status == REVOKED:
            status = REVOKED
        elif part.status == OUT_OF_DATE:
            status = _WITH_OLD_PART.get(status, status)
    advisories = set(platform.advisories).union(*(part.advisories for part in parts))
    return Standing(status=status, advisories=tuple(sorted(advisories)))
