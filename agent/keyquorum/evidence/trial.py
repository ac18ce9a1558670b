# SPDX-License-Identifier: Apache-2.0
"""Judging a bundle of any technology by what is known (docs/attestation-command.md §3).

One door to the appraisals of all technologies, for whoever does not know beforehand what will come. Which policies
were given decides what is demanded; a technology for which none was given is not judged at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.envelope import dsse
from keyquorum.errors import MalformedError, TamperingError
from keyquorum.evidence import (
    bundle,
    certificate,
    hcl_appraisal,
    hcl_policy,
    intel_appraisal,
    intel_bundle,
    intel_reference,
    nitro_appraisal,
    nitro_policy,
    reference_values,
    snp_appraisal,
    snp_policy,
    tpm_appraisal,
    tpm_public,
)
from keyquorum.evidence.certificates import Revocation
from keyquorum.evidence.hcl_appraisal import HclChallenge, HclEvidence, HclPolicies, SnpBase
from keyquorum.evidence.intel_certificates import INTEL_ROOTS
from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
from keyquorum.evidence.nitro_appraisal import AWS_ROOT, NitroChallenge
from keyquorum.evidence.signed_policy import MAX_ENVELOPE, SignedPolicy
from keyquorum.evidence.snp_certificates import AMD, Anchor
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.snp_report import PRODUCTS
from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence
from keyquorum.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.bundle import Bundle
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.intel_bundle import Collateral
    from keyquorum.evidence.result import AttestationResult

_SNP, _INTEL = snp_policy.REFERENCE_TYPE, intel_reference.INTEL_TYPE
_NITRO, _TPM, _AZURE = nitro_policy.REFERENCE_TYPE, reference_values.REFERENCE_TYPE, hcl_policy.REFERENCE_TYPE
POLICIES = {
    "snp": (_SNP,),
    "tdx": (_INTEL,),
    "sgx": (_INTEL,),
    "nitro": (_NITRO,),
    "tpm": (_TPM,),
    "azure-snp": (_SNP, _AZURE, _TPM),
    "azure-tdx": (_INTEL, _AZURE, _TPM),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the verifier knows: signed policies and who may sign them, what was asked for, the instant.

    `ak` is the enrolled key of a TPM as TPMT_PUBLIC. `roots` are believed instead of the makers' (None: the makers').
    `lowest_serials` are those of policies, by payload type; 1 for those that are not in it.
    """

    policies: tuple[bytes, ...]
    signers: tuple[dsse.PublicKey, ...]
    nonce: bytes
    now: int
    ak: bytes = b""
    roots: tuple[Certificate, ...] | None = None
    lowest_serials: Mapping[str, int] = field(default_factory=dict)


class _Trust(NamedTuple):
    snp: SnpTrust
    intel: IntelTrust
    nitro: frozenset[str]


def judge(given: Bundle, known: Known) -> AttestationResult:
    """Return what the evidence is worth.

    Raises `MalformedError` where something must be given that is not, `TamperingError` for parts that cannot be read.
    """
    if given.missing:
        raise MalformedError("the evidence", "", f"lacks {', '.join(given.missing)}", "collect it into one bundle")
    policies, trust = _policies(given.technology, known), _trust(known.roots)
    if given.technology == "snp":
        guest = SnpEvidence(report=given.part("report"), certificates=_certificates(given))
        asked = SnpChallenge(report_data=known.nonce)
        return snp_appraisal.appraise(guest, asked, _with_list(trust.snp, given), policies[_SNP], known.now)
    if given.technology in {"tdx", "sgx"}:
        evidence = IntelEvidence(quote=given.part("quote"), collateral=_collateral(given), log=given.part("log"))
        return intel_appraisal.appraise(evidence, known.nonce, policies[_INTEL], trust.intel, known.now)[0]
    if given.technology == "nitro":
        challenge = NitroChallenge(nonce=known.nonce, roots=trust.nitro)
        return nitro_appraisal.appraise(given.part("document"), challenge, policies[_NITRO], known.now)
    if given.technology == "tpm":
        key = Challenge(key=_attestation_key(known.ak), extra_data=known.nonce)
        return tpm_appraisal.appraise(_quote(given), key, policies[_TPM], known.now)[0]
    return _judge_azure(given, known, policies, trust)


def _judge_azure(given: Bundle, known: Known, policies: dict[str, SignedPolicy], trust: _Trust) -> AttestationResult:
    on_snp = given.technology == "azure-snp"
    evidence = HclEvidence(
        report=given.part("report"),
        quote=_quote(given),
        certificates=_certificates(given),
        td_quote=given.part("td-quote"),
        collateral=_collateral(given),
    )
    demanded = HclPolicies(hardware=policies[_SNP if on_snp else _INTEL], machine=policies[_AZURE], tpm=policies[_TPM])
    base = SnpBase(trust=_with_list(trust.snp, given)) if on_snp else trust.intel
    asked = HclChallenge(extra_data=known.nonce)
    return hcl_appraisal.appraise(evidence, asked, base, demanded, known.now)[0]


def _policies(technology: str, known: Known) -> dict[str, SignedPolicy]:
    """Return a policy for each part; who signed it, and whether it counts, is the appraisal's affair."""
    found: dict[str, SignedPolicy] = {}
    for data in known.policies:
        kind = payload_type(data)
        if kind not in POLICIES[technology]:
            raise MalformedError("a policy", "payloadType", f"{kind} is not for evidence of {technology}")
        if kind in found:
            raise MalformedError("a policy", "payloadType", f"{kind} was given twice")
        found[kind] = SignedPolicy(
            envelope=data, signers=known.signers, lowest_serial=known.lowest_serials.get(kind, 1)
        )
    missing = [kind for kind in POLICIES[technology] if kind not in found]
    if missing:
        raise MalformedError(f"evidence of {technology}", "", f"needs a policy of the type {missing[0]}")
    return found


def payload_type(envelope: bytes) -> str:
    """Return what a signed policy says that it is of, unverified; raises `TamperingError`."""
    table = strict_json.parse(envelope, "the policy", MAX_ENVELOPE, TamperingError)
    return dsse.parse(table, "the policy").payload_type


def _trust(roots: tuple[Certificate, ...] | None) -> _Trust:
    if roots is None:
        return _Trust(SnpTrust(anchors=AMD), IntelTrust(roots=INTEL_ROOTS), frozenset({AWS_ROOT}))
    prints = frozenset(one.sha256 for one in roots)
    anchors = tuple(
        Anchor(product=product, root=one.sha256)
        for one in roots
        for product in PRODUCTS
        if one.subject_text.startswith(f"CN=ARK-{product},")
    )
    return _Trust(SnpTrust(anchors=anchors), IntelTrust(roots=frozenset(map(bytes.fromhex, prints))), prints)


def _with_list(trust: SnpTrust, given: Bundle) -> SnpTrust:
    """A list that is there has to count; where it is from does not matter, for the root signs it."""
    data = given.part("crl")
    if not data:
        return trust
    return replace(trust, revocation=Revocation(lists=(certificate.load_list(data, "the revocation list"),)))


def _certificates(given: Bundle) -> tuple[bytes, ...]:
    return bundle.split_certificates(given.part("certificates"))


def _collateral(given: Bundle) -> Collateral | None:
    data = given.part("collateral")
    return intel_bundle.parse_bundle(data) if data else None


def _quote(given: Bundle) -> QuoteEvidence:
    return QuoteEvidence(
        attest=given.part("attest"),
        signature=given.part("signature"),
        pcrs=bundle.split_pcrs(given.part("pcrs")),
        log=given.part("log"),
    )


def _attestation_key(area: bytes) -> AttestationKey:
    if not area:
        raise MalformedError("evidence of tpm", "", "needs the attestation key that was enrolled")
    found = tpm_public.parse(area, "the attestation key")
    return AttestationKey(area=area, qualified_name=tpm_public.qualified_name((found.name,)))
