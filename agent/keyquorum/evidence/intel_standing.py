# SPDX-License-Identifier: Apache-2.0
"""What a platform is worth by Intel's collateral: authentic, current, of this platform, and then which level.

docs/attestation-intel.md §3 and §4. Nothing of collateral is parsed before its signature was checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate, certificates, intel_collateral, intel_signature, intel_tcb
from keyquorum.evidence.certificates import Lookup, Revocation
from keyquorum.evidence.intel_certificates import SIGNER
from keyquorum.evidence.intel_quote import TdReport
from keyquorum.evidence.intel_verify import Chain, examine_chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.intel_bundle import Collateral
    from keyquorum.evidence.intel_collateral import EnclaveIdentity, Issue, TcbInfo
    from keyquorum.evidence.intel_tcb import Standing
    from keyquorum.evidence.intel_verify import VerifiedQuote

_KINDS = {"tdx": {"tcb-info": "TDX", "qe-identity": "TD_QE"}, "sgx": {"tcb-info": "SGX", "qe-identity": "QE"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """By what collateral is judged: pinned roots, the instant in seconds since 1970, and the rollback floor."""

    roots: frozenset[bytes]
    now: int
    floor: int


def judge(
    verified: VerifiedQuote, collateral: Collateral | None, bounds: Bounds, checks: Checks
) -> tuple[Standing, int] | None:
    """Return the platform's standing and the lower tcbEvaluationDataNumber of the two, or None with a failed check."""
    if collateral is None:
        expected = "collateral for the platform"
        checks.demand("intel.tcb-info.signature", expected=expected, actual="no collateral", holds=False)
        return None
    lookup = _lookup(collateral, bounds.now, checks)
    if lookup is not None:
        _revocation("pck", verified.path, lookup, checks)
    signers = _signers(collateral, lookup, bounds, Chain("signer", SIGNER, verified.path[-1:]), checks)
    if signers is None:
        return None
    tee = verified.quote.tee
    info = _read("tcb-info", (collateral.tcb_info, collateral.tcb_info_signature), signers[0], checks)
    identity = _read("qe-identity", (collateral.qe_identity, collateral.qe_identity_signature), signers[1], checks)
    if not isinstance(info, intel_collateral.TcbInfo) or not isinstance(identity, intel_collateral.EnclaveIdentity):
        return None
    kinds = [_issue("tcb-info", tee, info.issue, bounds, checks)]
    kinds.append(_issue("qe-identity", tee, identity.issue, bounds, checks))
    platform = verified.platform
    same = checks.demand(
        "intel.tcb-info.platform",
        expected=f"FMSPC {platform.fmspc.hex()}, PCE-ID {platform.pce_id.hex()}",
        actual=f"FMSPC {info.fmspc.hex()}, PCE-ID {info.pce_id.hex()}",
        holds=(info.fmspc, info.pce_id) == (platform.fmspc, platform.pce_id),
    )
    if not same or not all(kinds):
        return None
    standing = _standing(verified, info, identity, checks)
    return None if standing is None else (standing, min(info.issue.evaluation, identity.issue.evaluation))


def _lookup(collateral: Collateral, now: int, checks: Checks) -> Lookup | None:
    try:
        lists = (
            certificate.load_list(collateral.root_crl, "the revocation list of the root"),
            certificate.load_list(collateral.pck_crl, "the revocation list of the issuer of PCK certificates"),
        )
    except TamperingError as problem:
        checks.refuse("intel.pck.revocation", problem, "revocation lists that can be read")
        return None
    return Lookup(Revocation(lists=lists, demanded=True), now)


def _revocation(part: str, path: tuple[Certificate, ...], lookup: Lookup, checks: Checks) -> None:
    try:
        count = lookup.check(path, "the certificates")
    except TamperingError as problem:
        checks.refuse(f"intel.{part}.revocation", problem, "on no list, and each issuer with a current list")
        return
    checks.demand(f"intel.{part}.revocation", expected="not revoked", actual=f"{count} looked up", holds=True)


def _signers(
    collateral: Collateral, lookup: Lookup | None, bounds: Bounds, chain: Chain, checks: Checks
) -> tuple[Certificate, Certificate] | None:
    """Return who signed TCB Info and who signed QE Identity: as a rule the same, and then looked at once."""
    found: dict[bytes, Certificate] = {}
    for pem in dict.fromkeys((collateral.tcb_info_chain, collateral.qe_identity_chain)):
        path = examine_chain(pem, bounds.roots, chain, bounds.now, checks)
        if path is None:
            return None
        if lookup is not None:
            _revocation("signer", path, lookup, checks)
        found[pem] = path[0]
    return found[collateral.tcb_info_chain], found[collateral.qe_identity_chain]


_READERS: dict[str, Callable[[bytes, str], TcbInfo | EnclaveIdentity]] = {
    "tcb-info": intel_collateral.parse_tcb_info,
    "qe-identity": intel_collateral.parse_identity,
}


def _read(
    part: str, signed: tuple[bytes, bytes], signer: Certificate, checks: Checks
) -> TcbInfo | EnclaveIdentity | None:
    data, signature = signed
    expected = "by the signer of collateral, over the exact bytes"
    try:
        intel_signature.verify(signer.key, signature, data, "the signature")
    except TamperingError as problem:
        checks.refuse(f"intel.{part}.signature", problem, expected)
        return None
    checks.demand(f"intel.{part}.signature", expected=expected, actual=expected, holds=True)
    try:
        found = _READERS[part](data, part)
    except TamperingError as problem:
        checks.refuse(f"intel.{part}.format", problem, "every field known")
        return None
    checks.demand(f"intel.{part}.format", expected="every field known", actual=f"{len(data)} bytes", holds=True)
    return found


def _issue(part: str, tee: str, issue: Issue, bounds: Bounds, checks: Checks) -> bool:
    kind = _KINDS[tee][part]
    right = checks.demand(f"intel.{part}.kind", expected=kind, actual=issue.kind, holds=issue.kind == kind)
    moments = [certificates.instant(when) for when in (issue.issued, issue.next_update, bounds.now)]
    issued, until, now = (f"{when:%Y-%m-%d %H:%M:%S}" for when in moments)
    checks.demand(
        f"intel.{part}.current",
        expected=f"from {issued} to before {until} UTC",
        actual=now,
        holds=issue.issued <= bounds.now < issue.next_update,
    )
    checks.demand(
        f"intel.{part}.floor",
        expected=f"tcbEvaluationDataNumber of at least {bounds.floor}",
        actual=str(issue.evaluation),
        holds=issue.evaluation >= bounds.floor,
    )
    return right


def _standing(verified: VerifiedQuote, info: TcbInfo, identity: EnclaveIdentity, checks: Checks) -> Standing | None:
    quote, platform = verified.quote, verified.platform
    qe = quote.qe
    checks.demand(
        "intel.qe.identity",
        expected=f"signer {identity.mrsigner.hex()}, product {identity.isvprodid}, attributes under the mask",
        actual=f"signer {qe.mrsigner.hex()}, product {qe.product}, attributes {qe.attributes.hex()}",
        holds=intel_tcb.is_quoting_enclave(identity, qe),
    )
    enclave = intel_tcb.isv_level(identity.levels, qe.security_version)
    checks.demand(
        "intel.qe.level",
        expected="a level that the quoting enclave reaches, not revoked",
        actual=f"security version {qe.security_version}: {enclave.status if enclave else 'no level'}",
        holds=enclave is not None and enclave.status != intel_tcb.REVOKED,
    )
    td = quote.body if isinstance(quote.body, TdReport) else None
    level = intel_tcb.match(info, platform, td)
    versions = f"SGX {platform.components}, PCE {platform.pcesvn}" + (f", TDX {td.tee_tcb_svn.hex()}" if td else "")
    checks.demand(
        "intel.tcb.level",
        expected="a level that the platform reaches in every component",
        actual=f"{level.status if level else 'no level'} for {versions}",
        holds=level is not None,
    )
    module = _module(td, info, checks) if td is not None else None
    if level is None or enclave is None or (module is None and td is not None):
        return None
    return intel_tcb.converge(level, enclave, *([module] if module else []))


def _module(td: TdReport, info: TcbInfo, checks: Checks) -> intel_collateral.IsvLevel | None:
    """Judge the TDX module: its signer and attributes, and its version by the levels of its own generation."""
    name = intel_tcb.module_name(td) or "the default module"
    found = intel_tcb.module_of(info, td)
    holds = checks.demand(
        "intel.tcb.module",
        expected=f"{name}, with Intel's signer and attributes",
        actual=f"signer {td.mrsignerseam.hex()}, attributes {td.seam_attributes.hex()}" if found else "unknown",
        holds=found is not None and intel_tcb.is_module(found, td),
    )
    if found is None or not holds:
        return None
    if not found.name:
        checks.waive("intel.tcb.module-level", "a module of generation 0 is judged with the platform", name)
        return intel_collateral.IsvLevel(svn=0, status=intel_tcb.UP_TO_DATE, advisories=())
    level = intel_tcb.isv_level(found.levels, td.tee_tcb_svn[0])
    checks.demand(
        "intel.tcb.module-level",
        expected="a level that the module reaches, not revoked",
        actual=f"version {td.tee_tcb_svn[0]} of {name}: {level.status if level else 'no level'}",
        holds=level is not None and level.status != intel_tcb.REVOKED,
    )
    return level
