# SPDX-License-Identifier: Apache-2.0
"""Judging one genuine piece of evidence against the cryptography in it alone, turn by turn in one process.

The peer takes the same bytes through the same library and decides nothing: certificates and lists are loaded with
their keys and extensions, every signature that the verifier must check is checked once, serial numbers are looked up.
What ours takes beyond that is reading, judging and explaining. The published vectors have to be beside the checkout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyquorum.envelope import dsse
from keyquorum.errors import TamperingError
from keyquorum.evidence import intel_appraisal, snp_appraisal, snp_certificates, snp_policy
from keyquorum.evidence.intel_verify import IntelEvidence, IntelTrust
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.model import strict_json
from keyquorum.native import sodium
from unit.evidence.intel_maker import signed_policy
from unit.evidence.tpm_maker import OWNER, signed
from vectors import test_intel_evidence as intel
from vectors import test_snp_evidence as snp

from .table import BY_NAME, Outcome, Sample

CALLS = 20
_VECTORS = Path(__file__).resolve().parents[2].parent / "shared/vectors"
_P256, _P384 = ec.ECDSA(hashes.SHA256()), ec.ECDSA(hashes.SHA384())
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)

Sides = tuple[Callable[[], AttestationResult], Callable[[], None]]


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """The two rows; AssertionError if what is measured is not trusted."""
    outcomes = []
    for name, sides in (("verify-snp", snp_sides()), ("verify-tdx", tdx_sides())):
        judge, primitives = sides
        result = judge()
        assert result.status is Status.TRUSTED, result.reason
        primitives()
        pairs = [(_microseconds(judge), _microseconds(primitives)) for _ in range(rounds)]
        ours, peer = (Sample(tuple(pair[side] for pair in pairs)) for side in (0, 1))
        outcomes.append(Outcome(BY_NAME[name], ours, peer))
    return outcomes, {"python": sys.version.split()[0]}


def _microseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        work()
    return (time.perf_counter() - start) / CALLS * 1e6


def _vector(name: str) -> Path:
    return _VECTORS / name


def _policy_primitives(policy: SignedPolicy) -> Callable[[], bool]:
    envelope = dsse.parse(strict_json.parse(policy.envelope, "policy", 1 << 16, TamperingError), "policy")
    message = dsse.pre_authentication_encoding(envelope.payload_type, envelope.payload)
    return lambda: sodium.verify_ed25519(OWNER.public.raw, message, envelope.signatures[0][1])


def _loaded(data: bytes) -> x509.Certificate:
    found = x509.load_der_x509_certificate(data)
    assert len(found.extensions)
    found.public_key()
    return found


def snp_sides() -> Sides:
    """A report of Milan by its VCEK, the published roots."""
    guest = snp.Guest(_vector, f"{snp.MICROSOFT}/milan_vcek.pem")
    policy = SignedPolicy(envelope=signed(guest.policy(), OWNER, snp_policy.REFERENCE_TYPE), signers=(OWNER.public,))
    by_owner, report, given = _policy_primitives(policy), guest.report, guest.evidence.certificates
    leaf = snp_certificates.load_leaf(given[0], "leaf").certificate  # with a serial number that the library likes
    message = given[0][4 : 4 + len(leaf.signed)]
    numbers = [int.from_bytes(report.signature[at : at + 72], "little") for at in (0, 72)]

    def primitives() -> None:
        own, middle, root = (_loaded(data) for data in (leaf.der, *given[1:]))
        middle.verify_directly_issued_by(root)
        by, key = middle.public_key(), own.public_key()
        assert isinstance(by, rsa.RSAPublicKey)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        by.verify(own.signature, message, _PSS, hashes.SHA384())
        key.verify(encode_dss_signature(numbers[0], numbers[1]), report.signed, _P384)
        assert by_owner()

    return lambda: snp_appraisal.appraise(guest.evidence, guest.challenge, snp.TRUST, policy, guest.now), primitives


def tdx_sides() -> Sides:
    """A quote of TDX with its chain, and Intel's collateral of the time."""
    scene = intel.Scene(_vector, "tdx_quote")
    policy = signed_policy(scene.policy())
    by_owner, quote, collateral = _policy_primitives(policy), scene.quote, scene.collateral
    assert quote is not None
    assert collateral is not None
    evidence = IntelEvidence(quote=scene.data, collateral=collateral)
    own, signers = (snp_certificates.from_pem(pem, "chain") for pem in (quote.certificates, collateral.tcb_info_chain))

    def primitives() -> None:
        leaf, middle, root = (_loaded(data) for data in own)
        signer, above = (_loaded(data) for data in signers)
        for below, issuer in ((leaf, middle), (middle, root), (signer, above)):
            below.verify_directly_issued_by(issuer)
        for data, issuer, revocable in (
            (collateral.root_crl, root, (middle, signer)),
            (collateral.pck_crl, middle, (leaf,)),
        ):
            revoked, key = x509.load_der_x509_crl(data), issuer.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert revoked.is_signature_valid(key)
            assert all(revoked.get_revoked_certificate_by_serial_number(one.serial_number) is None for one in revocable)
        attestation = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.key)
        for by, signature, message in (
            (leaf.public_key(), quote.qe_signature, quote.qe_report),
            (attestation, quote.signature, quote.signed),
            (signer.public_key(), collateral.tcb_info_signature, collateral.tcb_info),
            (signer.public_key(), collateral.qe_identity_signature, collateral.qe_identity),
        ):
            assert isinstance(by, ec.EllipticCurvePublicKey)
            r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
            by.verify(encode_dss_signature(r, s), message, _P256)
        assert by_owner()

    def judge() -> AttestationResult:
        return intel_appraisal.appraise(evidence, scene.report_data, policy, IntelTrust(), scene.now)[0]

    return judge, primitives
