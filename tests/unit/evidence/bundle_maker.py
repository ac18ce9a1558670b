# SPDX-License-Identifier: Apache-2.0
"""A trusted bundle of every technology, under test roots: with the policies, key and nonce by which it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.evidence import hcl_policy, nitro_policy, reference_values, snp_policy
from keyquorum.evidence.bundle import Bundle, join_pcrs
from keyquorum.evidence.certificate import load
from keyquorum.evidence.intel_reference import INTEL_TYPE
from keyquorum.evidence.trial import Known
from keyquorum.model import strict_json
from unit.evidence import intel_maker, nitro_maker, snp_maker, test_hcl, tpm_maker
from unit.evidence.tpm_maker import NONCE, NOW, OWNER, signed


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Evidence and what is known; `policies` are unsigned, each with its payload type; `roots` in DER."""

    bundle: Bundle
    policies: tuple[tuple[str, dict[str, Any]], ...]
    nonce: bytes
    roots: tuple[bytes, ...] = ()
    ak: bytes = b""

    def known(self, **changes: Any) -> Known:
        found: dict[str, Any] = {
            "policies": tuple(signed(table, OWNER, kind) for kind, table in self.policies),
            "signers": (OWNER.public,),
            "nonce": self.nonce,
            "now": NOW,
            "ak": self.ak,
            "roots": tuple(load(one, "root") for one in self.roots),
        }
        return Known(**(found | changes))


def _snp() -> Sample:
    scene = snp_maker.Scene()
    chain = scene.certificates()
    return Sample(
        bundle=Bundle(technology="snp", parts={"report": scene.signed_report(), "certificates": b"".join(chain)}),
        policies=((snp_policy.REFERENCE_TYPE, snp_maker.policy_table()),),
        nonce=snp_maker.ASKED,
        roots=chain[2:],
    )


def collateral(scene: intel_maker.Scene) -> bytes:
    """Return Intel's collateral as the file in which tools exchange it."""
    found = scene.collected()
    assert found is not None
    texts = {"tcb_info": found.tcb_info, "tcb_info_issuer_chain": found.tcb_info_chain}
    texts |= {"qe_identity": found.qe_identity, "qe_identity_issuer_chain": found.qe_identity_chain}
    octets = {"tcb_info_signature": found.tcb_info_signature, "qe_identity_signature": found.qe_identity_signature}
    octets |= {"pck_crl": found.pck_crl, "root_ca_crl": found.root_crl}
    table = {name: value.decode() for name, value in texts.items()}
    return strict_json.serialise(table | {name: value.hex() for name, value in octets.items()})


def _intel(tee: str, version: int) -> Sample:
    scene = intel_maker.Scene(tee=tee, version=version)
    return Sample(
        bundle=Bundle(technology=tee, parts={"quote": scene.quote(), "collateral": collateral(scene)}),
        policies=((INTEL_TYPE, intel_maker.policy(tee)),),
        nonce=intel_maker.REPORT_DATA,
        roots=(_der(intel_maker.root()),),
    )


def _der(made: x509.Certificate) -> bytes:
    return made.public_bytes(Encoding.DER)


def _nitro() -> Sample:
    scene = nitro_maker.Scene()
    chain = scene.chain()
    return Sample(
        bundle=Bundle(technology="nitro", parts={"document": scene.data(chain)}),
        policies=((nitro_policy.REFERENCE_TYPE, nitro_maker.TABLE),),
        nonce=NONCE,
        roots=chain[:1],
    )


def _tpm() -> Sample:
    scene = tpm_maker.Scene()
    attest = scene.quote()
    pcrs = {str(pcr): [value.hex()] for pcr, value in scene.values.items()}
    parts = {"attest": attest, "signature": scene.key.sign(attest), "pcrs": join_pcrs(scene.values)}
    return Sample(
        bundle=Bundle(technology="tpm", parts=parts | {"log": tpm_maker.log(scene.events)}),
        policies=((reference_values.REFERENCE_TYPE, tpm_maker.policy_table(pcrs)),),
        nonce=NONCE,
        ak=scene.key.area,
    )


def _azure(scene: test_hcl.Scene) -> Sample:
    evidence, _, _ = scene.evidence()
    quote = evidence.quote
    parts = {
        "report": evidence.report,
        "attest": quote.attest,
        "signature": quote.signature,
        "pcrs": join_pcrs(quote.pcrs),
        "log": quote.log,
    }
    pcrs = {str(pcr): [value.hex()] for pcr, value in quote.pcrs.items()}
    policies = (
        (hcl_policy.REFERENCE_TYPE, test_hcl.TABLE),
        (reference_values.REFERENCE_TYPE, tpm_maker.policy_table(pcrs)),
    )
    if not isinstance(scene, test_hcl.DomainScene):
        return Sample(
            bundle=Bundle(technology="azure-snp", parts=parts | {"certificates": b"".join(evidence.certificates)}),
            policies=(*policies, (snp_policy.REFERENCE_TYPE, snp_maker.policy_table())),
            nonce=NONCE,
            roots=evidence.certificates[2:],
        )
    more = {"td-quote": evidence.td_quote, "collateral": collateral(intel_maker.Scene())}
    return Sample(
        bundle=Bundle(technology="azure-tdx", parts=parts | more),
        policies=(*policies, (INTEL_TYPE, intel_maker.policy())),
        nonce=NONCE,
        roots=(_der(intel_maker.root()),),
    )


_MAKERS: dict[str, Callable[[], Sample]] = {
    "snp": _snp,
    "tdx": lambda: _intel("tdx", 4),
    "sgx": lambda: _intel("sgx", 3),
    "nitro": _nitro,
    "tpm": _tpm,
    "azure-snp": lambda: _azure(test_hcl.Scene()),
    "azure-tdx": lambda: _azure(test_hcl.DomainScene()),
}


@cache
def sample(technology: str) -> Sample:
    """Return what is trusted as it is."""
    return _MAKERS[technology]()
