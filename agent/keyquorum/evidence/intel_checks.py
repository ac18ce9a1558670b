# SPDX-License-Identifier: Apache-2.0
"""Every check of TDX and SGX evidence by its name, and where it is demanded (docs/attestation-intel.md §6)."""

from __future__ import annotations

_SGX_QUOTE = "SGX ECDSA QuoteGenReference API, A.4"
_TDX_QUOTE = "TDX DCAP Quoting Library API, A.3"
_PROFILE = "SGX PCK Certificate and CRL Profile"
_PCS = "SGX and TDX PCS API v4"
_TDX = "TDX Module ABI"
_SDM = "Intel SDM vol. 3D"
_OURS = "docs/attestation-intel.md"

POLICY = {
    "policy.signature": f"{_OURS} §5",
    "policy.format": f"{_OURS} §5",
    "policy.validity": f"{_OURS} §5",
    "policy.serial": f"{_OURS} §5",
    "policy.tee": f"{_OURS} §5",
}

QUOTE = {
    "intel.quote.structure": f"{_TDX_QUOTE}; {_SGX_QUOTE}",
    "intel.quote.version": f"{_TDX_QUOTE}, Version",
    "intel.quote.key-type": f"{_TDX_QUOTE}, Attestation Key Type",
    "intel.quote.tee": f"{_TDX_QUOTE}, TEE Type",
    "intel.quote.vendor": f"{_TDX_QUOTE}, QE Vendor ID",
    "intel.quote.body": f"{_TDX_QUOTE}, TD Quote Body Descriptor; {_SDM}, REPORT",
    "intel.quote.certification": f"{_TDX_QUOTE}, QE Certification Data",
    "intel.quote.fill": f"{_OURS} §2",
    "intel.pck.chain": f"{_PROFILE}; RFC 5280 §6",
    "intel.pck.role": f"{_PROFILE}, subjects",
    "intel.pck.validity": "RFC 5280 §6.1.3",
    "intel.pck.extensions": f"{_PROFILE}, SGX extensions",
    "intel.qe.signature": f"{_SGX_QUOTE}, QE Report Signature",
    "intel.qe.binding": f"{_SGX_QUOTE}, QE Report",
    "intel.qe.debug": f"{_SDM}, ATTRIBUTES.DEBUG",
    "intel.quote.signature": f"{_SGX_QUOTE}, ISV Enclave Report Signature",
    "intel.quote.report-data": "docs/attestation.md §4",
    "intel.platform.allowed": f"{_OURS} §5",
    "intel.platform.denied": f"{_OURS} §5",
}

COLLATERAL = {
    "intel.pck.revocation": f"{_PROFILE}; RFC 5280 §6.3",
    "intel.signer.chain": f"{_PCS}, TCB Signing; RFC 5280 §6",
    "intel.signer.role": f"{_PCS}, TCB Signing",
    "intel.signer.validity": "RFC 5280 §6.1.3",
    "intel.signer.revocation": "RFC 5280 §6.3",
    "intel.tcb-info.signature": f"{_PCS}, TCB Info",
    "intel.tcb-info.format": f"{_PCS}, TCB Info V3",
    "intel.tcb-info.kind": f"{_PCS}, TCB Info V3, id",
    "intel.tcb-info.current": f"{_PCS}, issueDate, nextUpdate",
    "intel.tcb-info.floor": f"{_PCS}, tcbEvaluationDataNumber",
    "intel.tcb-info.platform": f"{_PCS}, TCB Info V3, fmspc, pceId",
    "intel.qe-identity.signature": f"{_PCS}, Enclave Identity",
    "intel.qe-identity.format": f"{_PCS}, Enclave Identity V2",
    "intel.qe-identity.kind": f"{_PCS}, Enclave Identity V2, id",
    "intel.qe-identity.current": f"{_PCS}, issueDate, nextUpdate",
    "intel.qe-identity.floor": f"{_PCS}, tcbEvaluationDataNumber",
    "intel.qe.identity": f"{_PCS}, Enclave Identity V2",
    "intel.qe.level": f"{_PCS}, Enclave Identity V2, tcbLevels",
    "intel.tcb.level": f"{_PCS}, TCB level algorithm",
    "intel.tcb.module": f"{_PCS}, tdxModule, tdxModuleIdentities",
    "intel.tcb.module-level": f"{_PCS}, tdxModuleIdentities, tcbLevels",
    "intel.tcb.status": f"{_PCS}, tcbStatus",
    "intel.tcb.advisories": f"{_PCS}, advisoryIDs",
}

_MEASUREMENTS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam")
_ATTRIBUTES = ("debug", "sept-ve-disable", "migratable", "pks", "kl", "perfmon", "lass", "tpa")
_TD = {
    "tdx.attributes.reserved": f"{_TDX}, ATTRIBUTES",
    **{f"tdx.attributes.{name}": f"{_TDX}, ATTRIBUTES" for name in _ATTRIBUTES},
    "tdx.xfam.fixed": f"{_TDX}, XFAM",
    "tdx.xfam.allowed": f"{_OURS} §5",
    "tdx.log.format": "UEFI, Confidential Computing, CC event log",
    "tdx.log.replay": "UEFI, Confidential Computing, CC event log",
    "tdx.mrservicetd": f"{_TDX}, TDINFO.SERVTD_HASH",
    **{f"tdx.{name}": f"{_TDX}, TDREPORT" for name in _MEASUREMENTS},
}

_ENCLAVE = {
    "sgx.attributes.debug": f"{_SDM}, ATTRIBUTES.DEBUG",
    "sgx.attributes.init": f"{_SDM}, ATTRIBUTES.INIT",
    "sgx.attributes.mode64": f"{_SDM}, ATTRIBUTES.MODE64BIT",
    "sgx.attributes.reserved": f"{_SDM}, ATTRIBUTES",
    "sgx.attributes.provision-key": f"{_SDM}, ATTRIBUTES.PROVISIONKEY",
    "sgx.attributes.einittoken-key": f"{_SDM}, ATTRIBUTES.EINITTOKEN_KEY",
    "sgx.identity": f"{_SDM}, MRENCLAVE, MRSIGNER, ISVPRODID, ISVSVN",
    "sgx.configid": f"{_SDM}, CONFIGID",
    "sgx.isvextprodid": f"{_SDM}, ISVEXTPRODID",
    "sgx.isvfamilyid": f"{_SDM}, ISVFAMILYID",
}

REFERENCES = POLICY | QUOTE | COLLATERAL | _TD | _ENCLAVE

# Without all of these there is no trust: in a trust domain, and in an enclave.
TD = frozenset(POLICY | QUOTE | COLLATERAL | _TD)
ENCLAVE = frozenset(POLICY | QUOTE | COLLATERAL | _ENCLAVE) - {"intel.tcb.module", "intel.tcb.module-level"}
