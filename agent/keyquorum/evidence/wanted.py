# SPDX-License-Identifier: Apache-2.0
"""What must be known to judge evidence and does not come with it: what to ask whom for (docs/attestation-fetch.md §1).

It is told from evidence that nobody has verified yet. That only costs a wrong question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificate, hcl_report, intel_certificates, intel_quote, snp_report
from keyquorum.evidence.snp_report import SIGNED_BY_VCEK, SIGNED_BY_VLEK, TURIN

if TYPE_CHECKING:
    from keyquorum.evidence.bundle import Bundle

_PARAMETERS = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
_TURIN_ID = 8
_KEYS = {SIGNED_BY_VCEK: "vcek", SIGNED_BY_VLEK: "vlek"}
_CAS = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


class ChipWanted(NamedTuple):
    """The certificates of a chip: names in the store, and paths at AMD's service.

    Of a provider's key (VLEK) `leaf` is "": AMD gives that certificate to the provider alone.
    """

    leaf: str
    leaf_path: str
    chain: str
    chain_path: str
    crl: str
    crl_path: str


class PlatformWanted(NamedTuple):
    """Intel's word about a platform: the name in the store, and paths at Intel's service."""

    name: str
    tcb_path: str
    identity_path: str
    crl_path: str


def wanted(given: Bundle, product: str = "") -> ChipWanted | PlatformWanted | None:
    """Return what is wanted for evidence, None where nothing is; raises `TamperingError` for evidence of no use.

    `product` is AMD's, for a report of version 2, which does not say it.
    """
    if given.technology == "snp":
        return _chip(given.part("report"), product)
    if given.technology == "azure-snp":
        return _chip(hcl_report.parse(given.part("report"), "the report").hardware, product)
    if given.technology in {"tdx", "sgx"}:
        return _platform(given.part("quote"))
    if given.technology == "azure-tdx":
        return _platform(given.part("td-quote"))
    return None


def _chip(data: bytes, told: str) -> ChipWanted:
    what = "the report"
    report = snp_report.parse(data, what)
    if report.signing_key not in _KEYS:
        raise TamperingError(
            what, "", f"is signed by a key {report.signing_key}, which is neither a chip's nor a provider's"
        )
    product = snp_report.product(report.fms) if report.fms else told
    if not product:
        raise TamperingError(what, "", "does not say of which product its chip is", "--product says it")
    word = _KEYS[report.signing_key]
    store = f"snp-{product}" if report.signing_key == SIGNED_BY_VCEK else f"snp-{word}-{product}"
    above = ChipWanted(
        leaf="",
        leaf_path="",
        chain=f"{store}.pem",
        chain_path=f"/{word}/v1/{product}/cert_chain",
        crl=f"{store}.crl",
        crl_path=f"/{word}/v1/{product}/crl",
    )
    if report.signing_key != SIGNED_BY_VCEK:
        return above
    tcb = snp_report.components(report.tcb, product, what)
    chip = (report.chip_id[:_TURIN_ID] if product == TURIN else report.chip_id).hex()
    query = "&".join(f"{word}={tcb[component]}" for component, word in _PARAMETERS.items() if component in tcb)
    return above._replace(
        leaf=f"snp-{product}-{chip}-{report.tcb.hex()}.der", leaf_path=f"/vcek/v1/{product}/{chip}?{query}"
    )


def _platform(data: bytes) -> PlatformWanted:
    what = "the certificates of the platform"
    quote = intel_quote.parse(data)
    pem = certificate.from_pem(quote.certificates, what, intel_certificates.MAX_CHAIN)
    leaf, issuer = (certificate.load(one, what) for one in pem[:2]) if len(pem) > 1 else (None, None)
    names = [word for name, word in _CAS.items() if issuer is not None and f"CN={name}" in issuer.subject_text]
    if leaf is None or not names:
        raise TamperingError(what, "", "are not by an authority of Intel's for platforms")
    fmspc = intel_certificates.platform(leaf, what).fmspc.hex()
    return PlatformWanted(
        name=f"intel-{quote.tee}-{fmspc}-{names[0]}.json",
        tcb_path=f"/{quote.tee}/certification/v4/tcb?fmspc={fmspc}",
        identity_path=f"/{quote.tee}/certification/v4/qe/identity",
        crl_path=f"/sgx/certification/v4/pckcrl?ca={names[0]}&encoding=der",
    )
